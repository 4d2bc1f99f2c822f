// Orders and their invoices own each other: two shared pointers in a circle,
// made by templates that the compiler inlines.
#include <cstdio>
#include <memory>
#include <string>

template <typename Document> struct Linked {
    std::shared_ptr<Document> other;
    char body[200] = {};
};

struct Invoice;
struct Order : Linked<Invoice> {};
struct Invoice : Linked<Order> {};

template <typename Document> inline std::shared_ptr<Document> issue(int number) {
    auto document = std::make_shared<Document>();
    std::snprintf(document->body, sizeof document->body, "document %d", number);
    return document;
}

[[gnu::noinline]] static std::size_t place_order(int number) {
    auto order = issue<Order>(number);
    auto invoice = issue<Invoice>(number);
    order->other = invoice;
    invoice->other = order;
    return std::string(invoice->body).size();
}

int main() {
    std::size_t written = 0;
    for (int number = 0; number < 1000; number++) written += place_order(number);
    std::printf("wrote %zu characters\n", written);
    return 0;
}
