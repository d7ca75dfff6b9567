"""Names that a session gives to its players: Brave Otter, or in German Mutiger Otter.

How to think about it: player n gets the n-th word of each list, and the lists begin anew when they are used
up. Since their lengths have no common divisor, the same pair comes back only after all pairs have come.
"""

from __future__ import annotations

from typing import Final

_ENGLISH: Final = (
    """
    Brave Clever Sunny Gentle Swift Merry Curious Bright Calm Daring Eager Fancy Glad Happy Jolly Keen
    Lively Lucky Mighty Nimble Noble Patient Proud Quick Quiet Ready Royal Shiny Smart Snowy Steady
    Stellar Sturdy Tidy Tiny Vivid Warm Wild Wise Witty Zesty Amber Azure Coral Golden Silver Scarlet
    Violet Bold Breezy Cheerful Cosmic Dapper Electric Famous Fearless Frosty Graceful Honest Humble Magic
    """.split(),  # noqa: SIM905 - a list of words is read more easily than a list of strings
    """
    Otter Fox Badger Beaver Bear Wolf Lynx Hedgehog Hare Falcon Eagle Stork Raven Sparrow Owl Penguin
    Dolphin Whale Salmon Frog Newt Gecko Iguana Panther Tiger Lion Cheetah Leopard Jaguar Puma Elk Deer
    Bison Yak Donkey Hamster Lemur Gorilla Panda Koala Raccoon Marten Tapir Swan Pelican Flamingo Crane
    Heron Cormorant Cuckoo Toucan Parrot Ostrich Emu Pheasant Peacock Finch Hawk Buzzard Beetle Crab
    Lobster Octopus Narwhal Seal Walrus Squirrel
    """.split(),  # noqa: SIM905
)

# All animals are masculine, so that every adjective goes with them as it is.
_GERMAN: Final = (
    """
    Mutiger Kluger Sonniger Sanfter Flinker Fröhlicher Neugieriger Heller Ruhiger Kühner Eifriger Schicker
    Froher Munterer Lebhafter Starker Wendiger Edler Geduldiger Stolzer Schneller Leiser Bereiter
    Königlicher Blanker Schlauer Verschneiter Steter Strahlender Robuster Ordentlicher Winziger Bunter
    Warmer Wilder Weiser Witziger Frecher Goldener Silberner Roter Blauer Grüner Violetter Luftiger
    Heiterer Feiner Berühmter Furchtloser Frostiger Ehrlicher Lustiger Netter Pfiffiger Lockerer Tapferer
    Treuer Wacher Zarter Flotter Famoser
    """.split(),  # noqa: SIM905
    """
    Otter Fuchs Dachs Biber Bär Wolf Luchs Igel Hase Falke Adler Storch Rabe Spatz Uhu Pinguin Delfin Wal
    Lachs Frosch Molch Gecko Leguan Panther Tiger Löwe Gepard Leopard Jaguar Puma Elch Hirsch Bison Büffel
    Esel Hamster Lemur Gorilla Panda Koala Waschbär Marder Tapir Schwan Pelikan Flamingo Kranich Reiher
    Kormoran Kuckuck Tukan Papagei Strauß Emu Fasan Pfau Fink Habicht Bussard Käfer Krebs Hummer Oktopus
    Narwal Seehund Specht Kauz
    """.split(),  # noqa: SIM905
)

PAIRS: Final = len(_ENGLISH[0]) * len(_ENGLISH[1])
"""Different names without a number, in each language."""


def given_name(number: int, language: str) -> str:
    """The name of the player with this number, counted from 1, in a quiz of this language: in German for
    `de` and whatever begins with it, else in English. All numbers have different names; beyond `PAIRS` they
    end in a number of their own."""
    adjectives, animals = _GERMAN if language.lower().partition("-")[0] == "de" else _ENGLISH
    turn, place = divmod(number - 1, PAIRS)
    name = f"{adjectives[place % len(adjectives)]} {animals[place % len(animals)]}"
    return f"{name} {turn + 1}" if turn else name
