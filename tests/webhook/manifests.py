"""Random manifests in the spellings that people use, and the awkward ones."""

import json
from random import Random

# Read as strings by kubectl without quotes; PyYAML's resolvers read most of them otherwise.
PLAIN = [
    "12:30:00", "1:2:3", "12:30", "2026-11-28", "2026-11-28T10:00:00Z", "=", "1.2.3", "0x", "08:30",
    "2001-12-14t21:59:43.10-05:00", "1e", "a b", "http://a:80/b#c", "-x", "<<x", ".", "+", "_1",
    "5250x # a comment", "0b2", "0o8", "1_2x", "café",
]  # fmt: skip
# Numbers, booleans or null for kubectl's reader without quotes.
QUOTED = [
    "y", "Y", "n", "N", "08", "09", "0o17", "0O17", "0X1F", "0B11", "-0o7", "1e3", "1E5", "+1e3",
    "-1e3", "12e03", "7654321e21", ".5e3", "0.1e3", "1.0e5", "1e+3", "1e-3", "1_0e3", "1e1_0",
    "yes", "on", "Off", "null", "~", "", "true", "0", "017", "03788745", "+.5", "72225e2", ".inf",
    ".nan", " x", "x ", "#x", "a: b", "- a", "[a]", "{a}", "*a", "&a", "!a", "%a", "@a", "`a", "'",
    '"', "\\", "tab\there", "new\nline", "\u2028", "\U0001f600",
]  # fmt: skip
KEYS = ["n", "y", "on", "08", "1e3", "a.b/c", "0x10", "key"]
KINDS = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet"]
COMMENTS = [
    "# the kind", "# labels follow", "# the application", "# first", "# the end", "# one", "# none",
    "# app", "# helper", "# a comment",
]  # fmt: skip
_VERSIONS = {"Pod": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}


class Manifest:
    """Writes one random manifest as YAML text."""

    def __init__(self, random: Random, at: int) -> None:
        self.random, self.at, self.anchors = random, at, 0

    def text(self) -> str:
        kind = self.random.choice(KINDS)
        head = [
            f"apiVersion: {_VERSIONS.get(kind, 'apps/v1')}",
            f"kind: {kind} # the kind" if self._one_in(3) else f"kind: {kind}",
            "metadata:",
            f"  name: w{self.at}",
        ]
        if kind == "Pod":
            return self._joined([*head, *self._metadata(2), "spec:", *self._indent(self._pod(), 2)])
        if self._one_in(2):
            head += ["  annotations:", *self._entries(4)]
        if kind == "CronJob":
            template = ["schedule: '* * * * *'", "jobTemplate:", "  spec:"]
            return self._joined([*head, "spec:", *self._indent(template, 2), *self._template(6)])
        selector = []
        if kind != "Job":
            selector = ["  selector:", "    matchLabels: &labels", "      app: web"]
            selector += ["  serviceName: x"] if kind == "StatefulSet" else []
        return self._joined([*head, "spec:", *selector, *self._template(2, bool(selector))])

    def _template(self, column: int, shared: bool = False) -> list[str]:
        lines = ["template:", "  metadata:"]
        if shared and self._one_in(2):
            lines += ["    labels: *labels"]
            lines += ['    annotations: {tokenward.dev/inject: "true"}']
        else:
            lines += self._metadata(4)
        return self._indent([*lines, "  spec:", *self._indent(self._pod(), 4)], column)

    def _metadata(self, column: int) -> list[str]:
        lines = ["annotations:", "  tokenward.dev/inject: 'true'", *self._entries(2)]
        if self._one_in(2):
            lines += ["# labels follow", "labels:", *self._entries(2)]
        elif self._one_in(3):
            lines += [
                self.random.choice(["labels:", "labels: {}", "labels: null", "labels: ~ # none"])
            ]
        return self._indent(lines, column)

    def _pod(self) -> list[str]:
        lines = ["# the application", "containers:"]
        shared = self._one_in(4)
        dash = "" if self._one_in(2) else "  "
        for name in ["app", "helper"][: self.random.randint(1, 2)]:
            environment = self._environment(shared and name == "helper", shared and name == "app")
            rest = self._indent([f"image: {name}:1", *self._arguments(), *environment], 2)
            lines += self._indent([f"- name: {name} # {name}", *rest], len(dash))
        lines += self.random.choice(
            [[], ["initContainers: []"], ["initContainers: [{name: set-up, image: x}]"],
             ["initContainers:", "# first", "- name: set-up", "  image: x"], ["initContainers:"]]
        )  # fmt: skip
        lines += self.random.choice(
            [[], ["volumes:", "  - name: data", "    emptyDir: {}", "  # the end"],
             ["volumes: [{name: data, emptyDir: {}}] # one"], ["volumes: null"]]
        )  # fmt: skip
        if self._one_in(3):
            value = _quoted(self.random.choice(QUOTED))
            lines += ["nodeSelector: {" + f"{json.dumps(self._key())}: {value}" + "}"]
        return lines

    def _environment(self, alias: bool, anchor: bool) -> list[str]:
        if alias:
            return ["env: *env"]
        if self._one_in(4) and not anchor:
            return self.random.choice([[], ["env: []"], ["env:"]])
        values = [self._value() for _ in range(self.random.randint(1, 3))]
        lines = ["env: &env" if anchor else "env:"]
        for at, value in enumerate(values):
            lines += [f"  - name: V{at}", f"    value: {value}"]
        if self._one_in(3):
            lines += ["  - name: TEXT", "    value: |", "      one", "", "      two"]
        return lines

    def _arguments(self) -> list[str]:
        if self._one_in(3):
            return []
        values = [self._value() for _ in range(self.random.randint(1, 3))]
        return ["args:", *(f"- {value}" for value in values)]

    def _entries(self, column: int) -> list[str]:
        keys = self.random.sample(KEYS, self.random.randint(1, 3))
        return [" " * column + f"{json.dumps(key)}: {self._value()}" for key in keys]

    def _key(self) -> str:
        return self.random.choice(KEYS)

    def _value(self) -> str:
        if self._one_in(2):
            plain = self.random.choice(PLAIN)
            return plain if not set(plain) & set("{}[],") else json.dumps(plain)
        value = self.random.choice(QUOTED)
        if value.isprintable() and self._one_in(2):
            return "'" + value.replace("'", "''") + "'"
        return _quoted(value)

    def _one_in(self, chance: int) -> bool:
        return self.random.randrange(chance) == 0

    def _indent(self, lines: list[str], column: int) -> list[str]:
        return [" " * column + line if line else "" for line in lines]

    def _joined(self, lines: list[str]) -> str:
        return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    # YAML has no surrogate pairs.
    return json.dumps(value, ensure_ascii=max(value, default="") < "\U00010000")
