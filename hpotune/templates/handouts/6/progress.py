"""python progress.py STUDY...: the best score after each trial, as a table and as progress.svg."""

import sys

import hpotune

COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"]
LOW, HIGH = 0.50, 0.57


def line(scores, colour):
    best, points = 0.0, []
    for n, score in enumerate(scores):
        best = max(best, score)
        y = 20 + (HIGH - max(LOW, best)) / (HIGH - LOW) * 260
        points.append(f"{60 + n * 520 / max(1, len(scores) - 1):.1f},{y:.1f}")
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'


def main(names):
    parts = ['<rect x="60" y="20" width="520" height="260" fill="none" stroke="#888"/>',
             f'<text x="10" y="30">{HIGH}</text><text x="10" y="280">{LOW}</text>',
             '<text x="280" y="305">trials</text>']  # fmt: skip
    print("study    best as measured  the same without noise  trials at chance")
    for n, name in enumerate(names):
        trials = [one for one in hpotune.Study.load(name).trials if one.state == "finished"]
        scores = [one.values["accuracy"] for one in trials]
        best = max(trials, key=lambda one: one.values["accuracy"])
        chance = sum(score < 0.3 for score in scores)
        print(
            f"{name:8} {max(scores):.4f}            {best.metrics['without_noise']:.4f}                  {chance}"
        )
        parts.append(
            line(scores, COLOURS[n % 4])
            + f'<text x="{70 + n * 90}" y="325" fill="{COLOURS[n % 4]}">{name}</text>'
        )
    with open("progress.svg", "w") as file:
        head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 335" font-family="sans-serif" font-size="13">'
        file.write(f"{head}{''.join(parts)}</svg>\n")
    print("wrote progress.svg")


main(sys.argv[1:])
