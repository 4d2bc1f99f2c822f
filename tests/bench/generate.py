"""Sources for compilers to work on."""

from __future__ import annotations


def template_heavy(classes: int) -> str:
    """A C++ file that keeps a compiler busy: many types in many containers."""
    lines = [
        "#include <algorithm>",
        "#include <functional>",
        "#include <map>",
        "#include <memory>",
        "#include <string>",
        "#include <tuple>",
        "#include <unordered_map>",
        "#include <variant>",
        "#include <vector>",
        "template <int N> struct Tower {",
        "    using type = std::tuple<typename Tower<N - 1>::type, int>;",
        "};",
        "template <> struct Tower<0> { using type = std::tuple<>; };",
    ]
    for i in range(classes):
        lines += [
            f"struct Record{i} {{",
            "    int id; std::string name; std::vector<double> values;",
            f"    std::map<std::string, std::shared_ptr<Record{i}>> children;",
            f"    bool operator<(const Record{i} &o) const {{ return id < o.id; }}",
            "};",
            f"using Choice{i} = std::variant<int, std::string, Record{i}>;",
            f"int use{i}(std::vector<Record{i}> records) {{",
            "    std::sort(records.begin(), records.end());",
            f"    std::unordered_map<std::string, std::function<int(const Record{i} &)>> table;",
            f'    table["id"] = [](const Record{i} &r) {{ return r.id; }};',
            f"    std::map<int, Choice{i}> choices;",
            f"    Tower<{20 + i % 10}>::type tower{{}};",
            "    (void)tower;",
            "    int sum = 0;",
            "    for (auto &record : records) {",
            "        choices[record.id] = record;",
            '        sum += table["id"](record) + static_cast<int>(record.children.size());',
            "    }",
            "    for (auto &[id, choice] : choices)",
            "        sum += std::visit([](auto &&value) { return static_cast<int>(sizeof value); }, choice);",
            "    return sum;",
            "}",
        ]
    return "\n".join(lines) + "\n"
