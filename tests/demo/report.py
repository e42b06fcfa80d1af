"""The demo's report: what was claimed, what was measured, and whether it is true."""

import json

_WIDTH = 110


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def say(text=""):
    print(text, flush=True)


def heading(text):
    say(f"\n== {text} " + "=" * max(3, _WIDTH - len(text) - 4))


class Report:
    def __init__(self, checks=(), notes=()):
        self.checks = list(checks)
        self.notes = list(notes)     # lines of text for the report: tables, circumstances

    def check(self, name, ok, measured, required, unit=""):
        self.checks.append({"name": name, "ok": bool(ok), "measured": measured, "required": required, "unit": unit})
        say(f"  {'ok    ' if ok else 'FAILED'}  {name}: {_text(measured)} {unit}".rstrip())
        return ok

    def equal(self, name, measured, required, unit=""):
        return self.check(name, measured == required, measured, required, unit)

    def at_least(self, name, measured, required, unit=""):
        return self.check(name, measured >= required, measured, required, unit)

    def at_most(self, name, measured, required, unit=""):
        return self.check(name, measured <= required, measured, required, unit)

    def note(self, text):
        self.notes.append(text)
        say(f"  {text}")

    def true(self):
        return bool(self.checks) and all(check["ok"] for check in self.checks)

    # ---- As files.

    def save(self, path):
        """For the other half of the demo: with the notes."""
        with open(path, "w") as file:
            json.dump({"checks": self.checks, "notes": self.notes}, file)

    @classmethod
    def load(cls, path):
        with open(path) as file:
            saved = json.load(file)
        return cls(saved["checks"], saved["notes"])

    def save_json(self, path):
        with open(path, "w") as file:
            json.dump({"checks": self.checks}, file, indent=2)
            file.write("\n")

    def text(self):
        lines = [f"{'':6}  {'claim':<66} {'required':>15} {'measured':>15} unit"]
        for check in self.checks:
            lines.append(f"{'ok' if check['ok'] else 'FAILED':<6}  {check['name']:<66} {_text(check['required']):>15} "
                         f"{_text(check['measured']):>15} {check['unit']}".rstrip())
        true = sum(check["ok"] for check in self.checks)
        lines += ["", *self.notes, "", f"{true} of {len(self.checks)} claims are true."]
        return "\n".join(lines)
