"""Benchmark results in the form that every benchmark of the project has."""

import json
import os
import platform
import statistics
import sys


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}


def result(case, metric, unit, samples, goal=None, at_most=False):
    """`goal`: a bound on the median, from below unless `at_most`."""
    median = statistics.median(samples)
    met = None if goal is None else (median <= goal if at_most else median >= goal)
    return {"case": case, "metric": metric, "unit": unit, "median": median, "min": min(samples), "max": max(samples),
            "goal": goal, "met": met}


def publish(benchmark, results, as_json):
    """Prints the results; returns the exit status: 0 if every goal was met."""
    if as_json:
        json.dump({"benchmark": benchmark, "machine": machine(), "results": results}, sys.stdout, indent=2)
        print()
    else:
        print(f"{benchmark} on {machine()['cores']} cores of {machine()['cpu']}")
        for row in results:
            goal = "" if row["goal"] is None else f"  goal {row['goal']:g}: {'met' if row['met'] else 'MISSED'}"
            print(f"  {row['case']:<32} {row['metric']:<18} {row['median']:>14,.2f} {row['unit']:<10} "
                  f"({row['min']:,.2f} to {row['max']:,.2f}){goal}")
    return 0 if all(row["met"] is not False for row in results) else 1


def publish_checks(benchmark, outcome, as_json):
    """Prints {"results": rows, "checks": [{name, ok, measured, required, unit}]}; 0 if every check holds."""
    results, checks = outcome["results"], outcome["checks"]
    if as_json:
        json.dump({"benchmark": benchmark, "machine": machine(), "results": results, "checks": checks}, sys.stdout,
                  indent=2)
        print()
    else:
        publish(benchmark, results, False)
        for check in checks:
            print(f"  {'ok     ' if check['ok'] else 'FAILED '} {check['name']:<60} {check['measured']!s:>16} "
                  f"required {check['required']} {check['unit']}")
    return 0 if all(check["ok"] for check in checks) else 1
