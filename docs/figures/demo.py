#!/usr/bin/env python3
"""The README's picture, made of what the demo measured: `lcroute demo --json | docs/figures/demo.py >demo.svg`.

Seven scenes in a loop, by CSS alone. Where motion is not wanted, or not known, one still scene says the same.
"""

import json
import math
import sys
from html import escape

WIDTH, HEIGHT = 880, 440
CARD = (232, 122)
# lengths of the scenes, in seconds
SCENES = {"closed": 2.6, "linked": 2.0, "unheard": 3.0, "join": 4.8, "part": 4.6, "cut": 3.8, "killed": 4.2}
LOOP = sum(SCENES.values())
SPEED = 430  # pixels a second
FADE = 0.25
# into the loop: what shows only the first frame shows a scene
BEGIN = 0.3

STYLE = """
svg{--ground:#f7f9fd;--card:#fff;--ink:#141c33;--soft:#54607f;--line:#d8dfee;--edge:#a9b6d2;--packet:#2563eb;--join:#07804f;--part:#a84f00;--bad:#b42318;--brick:#c98a5a}
@media (prefers-color-scheme:dark){svg{--ground:#0f1629;--card:#17213b;--ink:#e9edf9;--soft:#a0acca;--line:#2b3859;--edge:#4d5d8c;--packet:#6fa1ff;--join:#43dfa0;--part:#ffb65c;--bad:#ff9a8f;--brick:#8d5f3f}}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:14px;fill:var(--ink)}
.mono{font-family:ui-monospace,"SF Mono","DejaVu Sans Mono",monospace;font-size:13px}
.mid{text-anchor:middle}.soft{fill:var(--soft)}.name{font-size:17px;font-weight:700}.count{font-weight:700;text-anchor:end}
.say{font-size:19px;font-weight:650}.figures{font-size:16px;fill:var(--soft)}
.ground{fill:var(--ground);stroke:var(--line)}.card{fill:var(--card);stroke:var(--line);stroke-width:1.5}
.chip{fill:var(--ground);stroke:var(--edge);stroke-width:1.5}.joined{fill:none;stroke:var(--join);stroke-width:3}.sends{fill:none;stroke:var(--packet);stroke-width:3}
.dead{fill:var(--card);stroke:var(--bad);stroke-width:3;stroke-dasharray:5 4}
.edge{fill:none;stroke:var(--edge);stroke-width:2}.wire{stroke:var(--edge);stroke-width:2}
.tree{fill:none;stroke:var(--packet);stroke-width:5;stroke-linecap:round}
.brick{fill:var(--brick)}.gap{stroke:var(--ground);stroke-width:1.5}
.envelope{fill:var(--card);stroke:var(--packet);stroke-width:2;stroke-linejoin:round}
.cross{fill:none;stroke:var(--bad);stroke-width:4;stroke-linecap:round}
.probe{fill:var(--bad)}.join{fill:var(--join)}.part{fill:var(--part)}.word{font-size:12px;font-weight:700;text-anchor:middle;fill:var(--card)}
.green{fill:var(--join)}.blue{fill:var(--packet)}.red{fill:var(--bad)}
.up,.down{fill:none;stroke:var(--join);stroke-width:2.5;stroke-linecap:round}.down{stroke:var(--packet)}
.dot{fill:var(--line)}.now{fill:var(--soft)}
.half{fill:none;stroke:var(--edge);stroke-width:2;stroke-dasharray:1}
.m{opacity:0}
"""

DEFINITIONS = """
<g id="envelope"><rect x="-12" y="-8.5" width="24" height="17" rx="2.5" class="envelope"/><path d="M-11-7L0 2L11-7" class="envelope" style="fill:none"/></g>
<g id="join"><rect x="-24" y="-11" width="48" height="22" rx="11" class="join"/><text y="4.5" class="word">JOIN</text></g>
<g id="part"><rect x="-24" y="-11" width="48" height="22" rx="11" class="part"/><text y="4.5" class="word">PART</text></g>
<path id="probe" d="M-9-6L5 0L-9 6Z" class="probe"/>
<path id="cross" d="M-8-8L8 8M8-8L-8 8" class="cross"/>
"""


def number(value):
    """As short as it can be."""
    return f"{round(value, 1):g}"


class Host:
    """A card: program, lc0 and lcroute in a row, and a wall where the Internet is."""

    def __init__(self, name, door, x, y, is_left):
        self.name, self.door, self.x, self.y = name, door, x, y
        width, height = CARD
        self.row = y + 70
        # from the program to the wall
        places = [50, 126, 187, width + 5]
        self.program, self.lc0, self.router, self.wall = ((x + p if is_left else x + width - p, self.row) for p in places)
        self.outside = 1 if is_left else -1

    def draw(self):
        width, height = CARD
        x, y, row = self.x, self.y, self.row
        ends = sorted([self.program[0], self.wall[0]])
        out = [
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="14" class="card"/>',
            f'<text x="{x + 14}" y="{y + 27}" class="name">{self.name}</text>',
            f'<path d="M{ends[0]} {row}H{ends[1]}" class="wire"/>',
        ]
        for (at, _), half, word in ((self.program, 38, "program"), (self.lc0, 21, "lc0"), (self.router, 31, "lcroute")):
            out.append(f'<rect x="{at - half}" y="{row - 20}" width="{2 * half}" height="40" rx="9" class="chip"/>')
            out.append(f'<text x="{at}" y="{row + 4.5}" class="mono mid">{word}</text>')
        left = self.wall[0] - 5
        out.append(f'<rect x="{left}" y="{y + 6}" width="10" height="{height - 12}" rx="2" class="brick"/>')
        courses = "".join(f"M{left} {at}h10" for at in range(y + 15, y + height - 8, 11))
        out.append(f'<path d="{courses}" class="gap"/>')
        side = x + width + 14 if self.outside > 0 else x - 14
        anchor = "start" if self.outside > 0 else "end"
        beside = y + height - 6 if self.door == "NAT" else y + 18  # there an arc passes
        out.append(f'<text x="{side}" y="{beside}" class="soft" text-anchor="{anchor}">{self.door}</text>')
        return "\n".join(out)


ALPHA = Host("alpha", "firewall", 28, 122, True)
BRAVO = Host("bravo", "firewall", WIDTH - 28 - CARD[0], 28, False)
CHARLIE = Host("charlie", "NAT", WIDTH - 28 - CARD[0], 216, False)
HOSTS = [ALPHA, BRAVO, CHARLIE]


def bow(a, b, out):
    """Points of an arc from a to b that leaves to the left."""
    points = []
    for step in range(9):
        t = step / 8
        points.append((a[0] - 4 * out * t * (1 - t), a[1] + (b[1] - a[1]) * t))
    return points


EDGES = {
    "alpha-bravo": [ALPHA.wall, BRAVO.wall],
    "alpha-charlie": [ALPHA.wall, CHARLIE.wall],
    "bravo-charlie": bow(BRAVO.wall, CHARLIE.wall, 46),
}
TO_BRAVO = [ALPHA.program, ALPHA.router, *EDGES["alpha-bravo"], BRAVO.router, BRAVO.program]
TO_CHARLIE = [ALPHA.program, ALPHA.router, *EDGES["alpha-charlie"], CHARLIE.router, CHARLIE.program]
AROUND = [*TO_BRAVO[:5], *EDGES["bravo-charlie"], CHARLIE.router, CHARLIE.program]


def line(points):
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def length(points):
    return sum(math.dist(a, b) for a, b in zip(points, points[1:]))


def begin_of(points, share):
    """The part of a way up to this share of its length, and from there to its end."""
    left, first = share * length(points), [points[0]]
    for at, (a, b) in enumerate(zip(points, points[1:])):
        step = math.dist(a, b)
        if step >= left:
            middle = tuple(p + (q - p) * left / step for p, q in zip(a, b))
            return [*first, middle], [middle, *points[at + 1 :]]
        left -= step
        first.append(b)
    return first, [points[-1]]


class Film:
    """Things that come, move and go, and the key frames for that."""

    def __init__(self):
        self.frames, self.things = {}, []

    def animate(self, states):
        """The class of a thing with these states: second, opacity, CSS. It is not there before the first and after the last."""
        states = [(0, 0, states[0][2]), *states, (LOOP, 0, states[-1][2])]
        text = "".join(f"{round(100 * at / LOOP, 2):g}%{{opacity:{opacity:g};{css}}}" for at, opacity, css in states)
        return self.frames.setdefault(text, f"k{len(self.frames)}")

    def add(self, thing, name, delay=0):
        style = f' style="animation-delay:{round(delay - BEGIN, 2):g}s"' if delay else ""
        self.things.append(thing.replace("@", f'class="m {name}"{style}', 1))

    def show(self, thing, begin, end, most=1):
        """There from begin to end."""
        states = [(begin, 0, ""), (begin + FADE, most, ""), (end - FADE, most, ""), (end, 0, "")]
        self.add(f"<g @>{thing}</g>", self.animate(states))

    def move(self, what, points, starts, turn=""):
        """Runs along points, once for each of the starts; when the last one has arrived."""
        first = at = min(starts)
        states = [(at, 0, place(points[0], turn)), (at + 0.12, 1, place(part_way(points, 0.12 * SPEED), turn))]
        for a, b in zip(points, points[1:]):
            at += math.dist(a, b) / SPEED
            if at > first + 0.13:
                states.append((at, 1, place(b, turn)))
        states.append((at + 0.15, 0, place(points[-1], turn)))
        self.repeat(what, states, starts)
        return at + max(starts) - first

    def drop(self, what, points, starts, aside=0, turn=""):
        """Runs along points, once for each of the starts, and falls away at the end."""
        self.move(what, points, starts, turn)
        (x, y), at = points[-1], min(starts) + length(points) / SPEED
        end, below = place((x, y), turn), place((x + aside, y + 44), turn)
        states = [(at, 0, end), (at + 0.05, 1, end), (at + 0.6, 0, below)]
        self.repeat(what, states, starts)

    def repeat(self, what, states, starts):
        name = self.animate(states)
        for start in starts:
            self.add(f'<use href="#{what}" @/>', name, start - min(starts))


def place(point, turn=""):
    return f"transform:translate({number(point[0])}px,{number(point[1])}px){turn}"


def part_way(points, distance):
    whole = length(points)
    return begin_of(points, min(distance / whole, 1))[0][-1]


def use(what, point):
    return f'<use href="#{what}" transform="translate({number(point[0])} {number(point[1])})"/>'


def around(point, half, kind):
    return f'<rect x="{point[0] - half}" y="{point[1] - 20}" width="{2 * half}" height="40" rx="9" class="{kind}"/>'


def tree(edge):
    return f'<path d="{line(EDGES[edge])}" class="tree"/>'


def counted(host, text, colour="green"):
    return f'<text x="{host.x + CARD[0] - 14}" y="{host.y + 27}" class="count {colour}">{text}</text>'


def does(host, kind, word):
    """What its program does, around it and below."""
    colour = {"sends": "blue", "joined": "green"}[kind]
    anchor, at = ("start", host.program[0] - 38) if host.outside > 0 else ("end", host.program[0] + 38)
    return f'{around(host.program, 38, kind)}<text x="{at}" y="{host.row + 37}" class="mono {colour}" text-anchor="{anchor}">{word} ff1e::42</text>'


def caption(say, figures):
    return f'<text x="36" y="384" class="say">{escape(say)}</text><text x="36" y="412" class="figures">{escape(figures)}</text>'


def draw(events):
    named = lambda name: [event for event in events if event["event"] == name]
    probed, linked, unheard = (named(name)[0] for name in ("probed", "linked", "unheard"))
    joined, left = ({node["node"]: node["got"] for node in event["nodes"]} for event in named("delivered"))
    cut, killed = (event["silence_ms"] for event in named("healed"))
    if sorted(joined) != sorted(host.name for host in HOSTS):
        sys.exit("the picture is of a demo with three nodes")
    sent = unheard["packets"]

    film, begins, at = Film(), {}, 0
    says = {
        "closed": (
            "Three hosts behind closed firewalls: nobody gets in.",
            f"{probed['packets']} probes from outside, {probed['dropped']} dropped.",
        ),
        "linked": (
            "lcroute links them, from inside out.",
            f"Encrypted WebRTC, no open port, no relay: all linked {linked['took_ms']} ms after the start.",
        ),
        "unheard": (
            "A program sends. Nobody has joined: nothing leaves the host.",
            f"{sent} packets sent to ff1e::42, {unheard['uplink_out_bytes']} bytes on the uplink.",
        ),
        "join": (
            "A program on bravo joins: its JOIN runs to alpha, packets run to bravo.",
            f"{sent} packets sent: bravo got {joined['bravo']}, charlie {joined['charlie']}.",
        ),
        "part": (
            "charlie joins. bravo’s program ends: PART, and no more packets for it.",
            f"The next {sent} packets: bravo got {left['bravo']}, charlie {left['charlie']}.",
        ),
        "cut": (
            "The path to charlie breaks: packets find another way.",
            f"charlie heard nothing for {cut:.0f} ms, then alpha again, by bravo.",
        ),
        "killed": (
            "bravo’s router is killed, and starts again.",
            f"charlie heard nothing for {killed:.0f} ms, then alpha again.",
        ),
    }
    for scene, (name, duration) in enumerate(SCENES.items()):
        begins[name] = at
        film.show(caption(*says[name]), at, at + duration)
        film.show(f'<circle cx="{WIDTH - 150 + 18 * scene}" cy="406" r="5" class="now"/>', at, at + duration)
        at += duration

    # nobody gets in
    t = begins["closed"]
    for host in HOSTS:
        out = host.outside
        for rise, when in ((-34, t + 0.4), (12, t + 1.1)):
            away, near = ((host.wall[0] + distance * out, host.row + rise) for distance in (130, 16))
            film.drop("probe", [away, near], [when], 18 * out, f" scale({-out},1)")

    # links grow from both ends
    t, broken = begins["linked"], begins["cut"] + 0.9
    shown = [(t + 0.3, 1, "stroke-dashoffset:1"), (t + 1.3, 1, "stroke-dashoffset:0")]
    stays = film.animate([*shown, (LOOP - FADE, 1, "stroke-dashoffset:0")])
    fades = ((broken, 1), (broken + 0.2, 0.25), (LOOP - FADE, 0.25))
    breaks = film.animate([*shown, *((at, opacity, "stroke-dashoffset:0") for at, opacity in fades)])
    for name, points in EDGES.items():
        first, second = begin_of(points, 0.5)
        for half in (first, second[::-1]):
            film.add(f'<path d="{line(half)}" pathLength="1" @/>', f"half {breaks if name == 'alpha-charlie' else stays}")

    # who sends and who has joined
    t = begins["unheard"]
    film.show(does(ALPHA, "sends", "sends to"), t + 0.1, LOOP)
    joins, parts = begins["join"] + 0.3, begins["part"] + 0.9
    film.show(does(BRAVO, "joined", "joined"), joins - 0.1, parts)
    film.show(does(CHARLIE, "joined", "joined"), begins["part"] + 0.2, LOOP)

    # nobody has joined
    home = [ALPHA.program, ALPHA.router]
    film.drop("envelope", home, [t + 0.4 + 0.45 * n for n in range(5)])
    film.show(counted(ALPHA, f"{unheard['dropped']} dropped", "red"), t + 1.4, begins["join"])

    # JOIN up, packets down
    heard = film.move("join", TO_BRAVO[:0:-1], [joins])
    film.show(tree("alpha-bravo"), heard - 0.2, parts + 1.5, 0.45)
    film.move("envelope", TO_BRAVO, [heard + 0.1 + 0.28 * n for n in range(4)])
    film.show(counted(BRAVO, f"{joined['bravo']} received"), heard + 1.9, begins["part"])
    film.show(counted(CHARLIE, f"{joined['charlie']} received", "soft"), heard + 1.9, begins["part"])

    # another joins, this one leaves
    t = begins["part"]
    film.move("join", TO_CHARLIE[:0:-1], [t + 0.3])
    film.move("part", TO_BRAVO[:0:-1], [parts])
    film.show(tree("alpha-charlie"), t + 1.6, broken, 0.45)
    film.move("envelope", TO_CHARLIE, [t + 2.4 + 0.28 * n for n in range(4)])
    film.show(counted(BRAVO, f"{left['bravo']} received", "soft"), t + 3.4, begins["cut"])
    film.show(counted(CHARLIE, f"{left['charlie']} received"), t + 3.9, begins["cut"])

    # a path breaks
    t = begins["cut"]
    middle = begin_of(EDGES["alpha-charlie"], 0.5)[0][-1]
    until = [*TO_CHARLIE[:2], ALPHA.wall, middle]
    film.drop("envelope", until, [t - 0.1 + 0.4 * n for n in range(4)])
    film.show(use("cross", middle), broken, LOOP)
    healed = broken + 1.0
    dies, lives = begins["killed"] + 0.6, begins["killed"] + 2.0
    for edge in ("alpha-bravo", "bravo-charlie"):
        film.show(tree(edge), healed, dies + 0.4, 0.45)
        film.show(tree(edge), lives, LOOP, 0.45)
    at_bravo = length(AROUND[:5]) / SPEED
    starts = [healed + 0.4 * n for n in range(20)]
    film.move("envelope", AROUND, [s for s in starts if s + at_bravo < dies])
    film.drop("envelope", AROUND[:5], [s for s in starts if dies <= s + at_bravo < lives])
    film.move("envelope", AROUND, [s for s in starts if lives <= s + at_bravo < LOOP - 1.2])
    film.show(f"{around(BRAVO.router, 31, 'dead')}{use('cross', BRAVO.router)}", dies, lives)

    # the still scene
    still = [f'<path d="{line(points)}" class="edge"/>' for points in EDGES.values()]
    still += [does(ALPHA, "sends", "sends to"), does(BRAVO, "joined", "joined")]
    still += [f'<g opacity=".45">{tree("alpha-bravo")}</g>']
    edge = EDGES["alpha-bravo"]
    still += [use("envelope", begin_of(edge, share)[0][-1]) for share in (0.35, 0.5, 0.65)]
    (x, y), slope = begin_of(edge, 0.6)[0][-1], math.degrees(math.atan2(edge[1][1] - edge[0][1], edge[1][0] - edge[0][0]))
    still += [f'<g transform="translate({number(x)} {number(y)}) rotate({number(slope)})">{use("join", (32, 30))}']
    still += ['<path d="M-46 30H6M-46 30l9-6M-46 30l9 6" class="up"/>']
    still += ['<path d="M-70-24H40M40-24l-9-6M40-24l-9 6" class="down"/></g>']
    still += [counted(BRAVO, f"{joined['bravo']} received"), counted(CHARLIE, f"{joined['charlie']} received", "soft")]
    figures = f"{sent} packets sent: bravo got {joined['bravo']}, charlie {joined['charlie']}. Without a JOIN none leaves alpha."
    still += [caption("Packets run to programs that have joined, and nowhere else.", figures)]

    story = " ".join(f"{say} {figures}" for say, figures in says.values())
    frames = "\n".join(f"@keyframes {name}{{{text}}}" for text, name in film.frames.items())
    moving = "\n".join(f".{name}{{animation:{name} {LOOP:g}s linear -{BEGIN}s infinite}}" for name in film.frames.values())
    dots = "".join(f'<circle cx="{WIDTH - 150 + 18 * n}" cy="406" r="5" class="dot"/>' for n in range(len(SCENES)))
    cards = "\n".join(host.draw() for host in HOSTS)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title story">
<title id="title">What lcroute does, in seven scenes</title>
<desc id="story">{escape(story)}</desc>
<style>{STYLE}{frames}
@media (prefers-reduced-motion:no-preference){{.still{{display:none}}
{moving}}}
@media (prefers-reduced-motion:reduce){{.film{{display:none}}}}
</style>
<defs>{DEFINITIONS}</defs>
<rect x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="18" class="ground"/>
<text x="440" y="{ALPHA.row + 5}" class="soft mid">the Internet</text>
{cards}
<g class="still">{"".join(still)}</g>
<g class="film">{dots}
{chr(10).join(film.things)}
</g>
</svg>
"""


def main():
    lines = [json.loads(text) for text in sys.stdin]
    sys.stdout.write(draw([event for step in lines for event in step.get("events", [])]))


main()
