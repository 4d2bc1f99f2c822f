/* Producers take messages from a free list of their own and malloc when it is
 * empty. Consumers give messages back to *their* free list, where nobody looks:
 * every message is allocated anew. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAIRS = 2, MESSAGES = 5000, BYTES = 256, ROOM = 64 };

struct message {
    struct message *next;
    char text[BYTES - sizeof(struct message *)];
};

static _Thread_local struct message *free_list;

__attribute__((noinline)) static struct message *new_message(void) {
    struct message *message = free_list;
    if (message != NULL) {
        free_list = message->next;
    } else {
        message = malloc(sizeof *message);
        if (message == NULL) abort();
    }
    message->next = NULL;
    return message;
}

static void recycle(struct message *message) {
    message->next = free_list;
    free_list = message;
}

struct channel {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct message *waiting[ROOM];
    int first, count;
} channels[PAIRS];

static void send_message(struct channel *channel, struct message *message) {
    pthread_mutex_lock(&channel->lock);
    while (channel->count == ROOM) pthread_cond_wait(&channel->changed, &channel->lock);
    channel->waiting[(channel->first + channel->count++) % ROOM] = message;
    pthread_cond_broadcast(&channel->changed);
    pthread_mutex_unlock(&channel->lock);
}

static struct message *receive_message(struct channel *channel) {
    pthread_mutex_lock(&channel->lock);
    while (channel->count == 0) pthread_cond_wait(&channel->changed, &channel->lock);
    struct message *message = channel->waiting[channel->first];
    channel->first = (channel->first + 1) % ROOM;
    channel->count--;
    pthread_cond_broadcast(&channel->changed);
    pthread_mutex_unlock(&channel->lock);
    return message;
}

static void *produce(void *argument) {
    for (int i = 0; i < MESSAGES; i++) {
        struct message *message = new_message();
        snprintf(message->text, sizeof message->text, "message %d", i);
        send_message(argument, message);
    }
    return NULL;
}

static void *consume(void *argument) {
    for (int i = 0; i < MESSAGES; i++) recycle(receive_message(argument));
    return NULL;
}

int main(void) {
    pthread_t threads[2 * PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        pthread_mutex_init(&channels[i].lock, NULL);
        pthread_cond_init(&channels[i].changed, NULL);
        pthread_create(&threads[2 * i], NULL, produce, &channels[i]);
        pthread_create(&threads[2 * i + 1], NULL, consume, &channels[i]);
    }
    for (int i = 0; i < 2 * PAIRS; i++) pthread_join(threads[i], NULL);
    printf("messages: %d\n", PAIRS * MESSAGES);
    return 0;
}
