"""python compare.py STUDY...: what each study has tried, as a table and as compare.svg, a panel a study."""

import math
import sys

import hpotune

WIDTH, HEIGHT, LEFT, TOP = 240, 200, 50, 40


def points(name):
    """(learning rate, layers, loss) of every finished trial."""
    trials = [trial for trial in hpotune.Study.load(name).trials if trial.state == "finished"]
    return [
        (one.params["params.learning_rate"], one.params["params.layers"], one.values["loss"])
        for one in trials
    ]


def panel(name, found, left):
    """One study: its points, the best of them filled, and a mark on the axis below for each learning rate."""
    best = min(found, key=lambda point: point[2])
    parts = [f'<text x="{left}" y="{TOP - 12}">{name}: best loss {best[2]:.3f}</text>',
             f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>']  # fmt: skip
    for rate, layers, loss in found:
        x = left + (math.log10(rate) + 5) / 5 * WIDTH
        y = TOP + HEIGHT - (layers - 0.5) / 7 * HEIGHT
        fill = "#1f77b4" if loss == best[2] else "none"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="#1f77b4"/>')
        parts.append(f'<path d="M{x:.1f} {TOP + HEIGHT} v10" stroke="#d62728"/>')
    parts.append(f'<text x="{left}" y="{TOP + HEIGHT + 26}">1e-5</text>')
    parts.append(f'<text x="{left + WIDTH - 14}" y="{TOP + HEIGHT + 26}">1</text>')
    parts.append(f'<text x="{left + 60}" y="{TOP + HEIGHT + 26}">learning rate</text>')
    return "".join(parts)


def main(names):
    panels = []
    for n, name in enumerate(names):
        found = points(name)
        rates = len({f"{rate:.6g}" for rate, _, _ in found})
        print(
            f"{name:8} {len(found):3} trials {rates:3} learning rates  best loss {min(p[2] for p in found):.3f}"
        )
        panels.append(panel(name, found, LEFT + n * (WIDTH + 40)))
    width = LEFT + len(names) * (WIDTH + 40)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 40}"'
    side = f'<text transform="translate({LEFT - 12} {TOP + 130}) rotate(-90)">layers</text>'
    with open("compare.svg", "w") as file:
        file.write(f'{head} font-family="sans-serif" font-size="13">{side}{"".join(panels)}</svg>\n')
    print("wrote compare.svg")


main(sys.argv[1:])
