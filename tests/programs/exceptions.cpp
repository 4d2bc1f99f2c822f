// C++ exceptions thrown through frames that allocate, at changing depths: what
// comes after a throw must not be told with the frames that the throw left.
#include "truth.h"

#include <memory>
#include <stdexcept>

enum { BEFORE, DEEP, AFTER, SITES };
static struct site sites[SITES] = {
    TRUTH_INIT("before_throw"), TRUTH_INIT("deep_in"), TRUTH_INIT("after_catch")};

SITE static char *before_throw() { return static_cast<char *>(kept(new char[64])); }
SITE static char *deep_in() { return static_cast<char *>(kept(::operator new(96))); }
SITE static char *after_catch() { return static_cast<char *>(kept(new char[32])); }

// Frees its block however it is left.
struct Holder {
    char *block = before_throw();
    Holder() { born(&sites[BEFORE], 64); }
    ~Holder() {
        delete[] block;
        died(&sites[BEFORE], 64);
    }
};

SITE static int fall(int depth) {
    Holder holder;
    kept(holder.block);
    if (depth == 0) {
        deep_in();
        born(&sites[DEEP], 96);
        throw std::runtime_error("a message that is too long to stand in the string itself");
    }
    return fall(depth - 1) + 1;
}

int main() {
    for (int i = 0; i < 3000; i++) {
        try {
            fall(i % 23);
        } catch (const std::exception &error) {
            kept(const_cast<char *>(error.what()));
            after_catch();
            born(&sites[AFTER], 32);
        }
    }
    say_truth(sites, SITES);
    return 0;
}
