"""Names that mislead or offend.

How to think about it: two names that look alike have the same *skeleton* (Unicode Technical Standard 39):
every character is replaced by the one that it can be taken for. No player may have a name whose skeleton
another player has. Names such as Host and Admin, and swearwords, are refused unless the host allows them.
Words are looked up whole: Scunthorpe is a place. A swearword in one language is a first name in another, so a
quiz uses the words of its own language, those of English, and those that several languages share.

The tables come from outside. Stored names are never judged again.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from engine.domain.text import fold

_RESERVED: Final = frozenset(
    """
    host hosts thehost gastgeber gastgeberin hote anfitrion ospite organisateur organizador
    admin admins theadmin administrator administrateur administrador amministratore root system support
    moderator moderators moderatorin mod moderateur moderador moderatore
    spielleiter spielleitung spielleiterin quizmaster quizleiter quizleitung quizmeister presenter fanfare
    """.split()  # noqa: SIM905 - a list of words is read more easily than a list of strings
)
"""Whole names that claim to lead the session; folded."""

_WITHIN: Final = (
    "fuck",
    "nigger",
    "nigga",
    "faggot",
    "motherf",
    "arschloch",
    "hurensohn",
    "wichser",
    "schwuchtel",
)
"""Found within longer words as well: no name and no other word holds them."""

_NAMES: Final = frozenset(
    """
    anita reva dick lolita coon coons hooker pina comer gerber amador pinto pitt peter butt cumming cummings
    boner poon mose marica carita fava pesce pompa regina troia vacca palen pica fan hard naida beaner
    beaners cocks fick hoe kimme rosette schiesser cailler chier concha martillo trio verga balle cozza
    figone mona mussa spagnola terrone uccello del poot ariano consolo padlo kunda sulin prutt stake muna
    pano pele franc griet johny olla satan randy fanny willy gay dong wang cox dyke kuntz assad fatma fatima
    semen mama duro venire monta topa guanto pistola quaglia lumaca carciofo cammello cappella nudo battere
    tirare sega burro saco cerveja torneira aranha paal pot gat hol matje muts standje schatje watje asbak
    eikel nicht poep bonze fratze mopse lummel nackt kacke popel poppen nippel rosette veuve folle bosser
    bourre drague gerbe pedale tanche trique bander bitte drogas heroina idiota infierno maldito asno escort
    domination kinky lovemaking erotism grope muna tavara reika toosa panna molo palli piru pipari sexy
    """.split()  # noqa: SIM905
)
"""What lists of swearwords hold and people are called, or call their teams; folded."""

_EVERYWHERE: Final = frozenset(
    """
    kurwa kurva puta putain pute merde mierda merda scheisse arsch fotze hure nutte cazzo stronzo vaffanculo
    caralho gilipollas cabron maricon connard salope blyat cyka suka pizda klootzak godverdomme neger perkele
    """.split()  # noqa: SIM905
)
"""Swearwords that are known beyond their language; folded."""

_OF_AN_ERASED: Final = re.compile(r"[#♯]\s*\d+")
"""What stands in place of an erased name, and what can be taken for it; folded."""

_LEET: Final = str.maketrans("@4310$5!7|", "aaeiossitl")
_NUMBER: Final = re.compile(r"(?<![^\W_])(?<![@$!|])\d+(?![^\W_@$!|])|\d*[2689]\d*")
"""Digits that stand for no letters, since they touch none, or not all of them could: neither Team-455
nor P2455 has chosen a swearword."""
_ABOVE: Final = 200
"""Combining classes from here on are accents."""

_LARGE_L: Final = "|"
"""Stands for it in a skeleton, in which the sign itself is a small one."""
_RUNS: Final = re.compile(r"(.)\1{2,}")
_WORDS: Final = re.compile(r"[^\W\d_]+")
_PHRASE_MAX: Final = 4
_COMMON: Final = "en"
_LENGTH_MIN: Final = 3
_FOREIGN_LENGTH_MIN: Final = 4
"""Shorter ones are, among all languages, half of the short words that there are."""


def stands_for_erased(likeness: str) -> bool:
    """Whether a folded name could be taken for that of a player whose name was erased."""
    return _OF_AN_ERASED.fullmatch(likeness) is not None


class NameRules:
    """The tables that names are checked against, besides each other.

    Args:
        skeletons: for a code point, the text it can be taken for; a missing code point stands for itself.
        words: swearwords by language (`en`, `de`), in any spelling.
    """

    def __init__(
        self, skeletons: Mapping[int, str] | None = None, words: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._skeletons = {char: seen.replace("L", _LARGE_L) for char, seen in (skeletons or {}).items()}
        if skeletons:
            self._skeletons[ord("L")] = _LARGE_L
        folded = {language: {fold(word) for word in each} for language, each in (words or {}).items()}
        known = Counter(word for each in folded.values() for word in each)
        shared = {
            word for word, languages in known.items() if languages > 1 and len(word) >= _FOREIGN_LENGTH_MIN
        }
        if folded:
            shared |= _EVERYWHERE | {word for word in folded.get(_COMMON, ()) if len(word) >= _LENGTH_MIN}
        self._everywhere = frozenset(shared - _NAMES)
        self._words = {
            language: self._everywhere | {word for word in each - _NAMES if len(word) >= _FOREIGN_LENGTH_MIN}
            for language, each in folded.items()
        }
        self._reserved = _RESERVED | frozenset(map(self.skeleton, _RESERVED))

    def skeleton(self, name: str) -> str:
        """Equal for names that look alike, whatever their case and accents. A capital L looks like no other
        letter: Lan is not taken for Ian."""
        if not name.isascii():
            apart = unicodedata.normalize("NFD", name)
            name = "".join(char for char in apart if unicodedata.combining(char) < _ABOVE)
        return fold(name.translate(self._skeletons)) or name

    def refuses(self, plain: str, skeleton: str, language: str) -> bool:
        """Whether a name is refused in a quiz of this language, because it claims to lead the session or
        contains a swearword. Args: the results of `fold` and `skeleton` for the name."""
        bare = _NUMBER.sub(" ", plain)
        seen = (skeleton if bare == plain else self.skeleton(bare)).replace(_LARGE_L, "l")
        spellings = {plain, seen, bare.translate(_LEET), seen.translate(_LEET)}
        if any(_letters(each) in self._reserved for each in (skeleton, *spellings)):
            return True
        words = self._words.get(language.lower().partition("-")[0], self._everywhere)
        return bool(words) and any(_offends(_RUNS.sub(r"\1", each), words) for each in spellings)


def _letters(text: str) -> str:
    return "".join(_WORDS.findall(text))


def _offends(text: str, words: frozenset[str]) -> bool:
    parts = _WORDS.findall(text)
    joined = "".join(parts)
    if any(each in joined for each in _WITHIN) or text in words:
        return True
    if len(parts) > 2 and all(len(part) == 1 for part in parts) and joined in words:
        return True
    for start in range(len(parts)):
        for end in range(start + 1, min(start + _PHRASE_MAX, len(parts)) + 1):
            if " ".join(parts[start:end]) in words:
                return True
    return False


PLAIN: Final = NameRules()
"""Without tables: only case and accents make names alike, and only the house's own names are reserved."""
