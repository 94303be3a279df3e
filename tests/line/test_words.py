"""The words files are complete in every language, and understood as people speak.

What is wrong with a file is told with file and line. No sentence stands here: whoever changes one
breaks no test.
"""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.text import fold_words
from phone_line.understanding import (
    AGAIN,
    OPERATOR,
    commanded_steps,
    is_no,
    is_yes,
    key_of_words,
    mentions_any,
    without_filler,
)
from phone_line.words import FOLDER, Words, languages, read_words, unfilled
from phone_line.words_file import read_text, tell_syntax
from standins.voices import NEURAL

LANGUAGES: Final = languages()


def parse(language: str) -> dict[str, Any]:
    """A words file as it stands. A ValueError names file and line of what is no TOML."""
    file = FOLDER / f"{language}.toml"
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(tell_syntax(file, read_text(file), error)) from None


FILES: Final = {language: parse(language) for language in LANGUAGES}
REGIONS: Final = [tag for language in LANGUAGES for tag in FILES[language]["voices"]]
PLACEHOLDERS: Final = {"menu", "name", "key", "heard", "caller", "seconds", "link", "transcript"}
LONGEST: Final = 300  # letters of a sentence: longer than anybody listens to without a pause


def placeholders(sentence: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", sentence))


def regional_sentences(language: str) -> dict[str, dict[str, str]]:
    """The tables of a file with what its regions say differently."""
    tables = FILES[language]["sentences"]
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


@cache
def words_of(tag: str) -> Words:
    """The words that we ship for a language and region."""
    return read_words(tag)


def first_words(language: str) -> Words:
    return words_of(next(iter(FILES[language]["voices"])))


# Every language is complete.


@pytest.mark.parametrize("tag", REGIONS)
def test_a_language_that_we_ship_has_no_problems(tag: str) -> None:
    """Every file is right in every part, for each of its regions."""
    assert words_of(tag).problems == ()


@pytest.mark.parametrize("tag", REGIONS)
def test_every_language_has_the_same_sentences_with_the_same_placeholders(tag: str) -> None:
    """A sentence that exists in English exists everywhere, and tells as much."""
    english = words_of("en-US").sentences
    sentences = words_of(tag).sentences
    assert sentences.keys() == english.keys()
    for name, sentence in sentences.items():
        assert placeholders(sentence) == placeholders(english[name]), name


@pytest.mark.parametrize("tag", REGIONS)
def test_a_sentence_is_short_enough_and_fills_only_what_is_known(tag: str) -> None:
    """No sentence is longer than anybody listens to, and none has braces that nothing fills."""
    for name, sentence in words_of(tag).sentences.items():
        assert 0 < len(sentence) <= LONGEST, name
        assert unfilled(sentence, PLACEHOLDERS) == [], name
        assert sentence == " ".join(sentence.split()), name


@pytest.mark.parametrize("tag", REGIONS)
def test_every_region_has_a_voice_that_speaks_its_language(tag: str) -> None:
    """A region is spoken by a neural voice that Twilio and Amazon list for it."""
    names = [f"Polly.{name}-Neural" for name in NEURAL[tag].split()]
    assert words_of(tag).voice in names


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_region_says_differently_only_what_differs(language: str) -> None:
    """What a region says differently is a sentence of the language, and is not the same."""
    sentences = FILES[language]["sentences"]
    for tag, table in regional_sentences(language).items():
        assert tag in REGIONS
        for name, sentence in table.items():
            assert words_of(tag).sentences[name] == sentence != sentences[name]
            assert first_words(language).sentences[name] == sentences[name]


@pytest.mark.parametrize("tag", [tag for tag in REGIONS if tag.startswith("fr")])
def test_no_french_word_before_a_name_would_have_to_lose_its_vowel(tag: str) -> None:
    """A department or a caller's words may begin with a vowel: "de Anna" is never said."""
    for name, sentence in words_of(tag).sentences.items():
        assert not re.search(r"\b(de|que|le|la|je|ne|se) {(?!key})", sentence), name


def test_a_region_without_a_voice_is_spoken_by_the_first() -> None:
    """Where Twilio has no voice for a region, the first voice of the language speaks."""
    assert words_of("en-CA").voice == words_of("en-US").voice
    assert words_of("de-CH").voice == words_of("de-DE").voice


# What people say.

COMMANDS: Final = [
    # region, what is said in a menu, the key or the command that it means; "" is neither
    ("en-US", "zero", "0"),
    ("en-US", "oh", "0"),
    ("en-US", "Number one.", "1"),
    ("en-US", "option two", "2"),
    ("en-US", "Two, please!", "2"),
    ("en-US", "to", "2"),
    ("en-US", "for", "4"),
    ("en-US", "the first one", "1"),
    ("en-US", "I want the second one, please", "2"),
    ("en-US", "press seven", "7"),
    ("en-US", "the 3rd one", "3"),
    ("en-US", "just a second", ""),
    ("en-US", "one moment", ""),
    ("en-US", "one question", ""),
    ("en-US", "I want to", ""),
    ("en-US", "two tickets", ""),
    ("en-US", "representative", OPERATOR),
    ("en-US", "customer service", OPERATOR),
    ("en-US", "I'd like to speak to someone", OPERATOR),
    ("en-US", "Can I talk to a real person, please?", OPERATOR),
    ("en-US", "the receptionist", OPERATOR),
    ("en-US", "hello, is anybody there", OPERATOR),
    ("en-US", "let me speak with an agent", OPERATOR),
    ("en-US", "travel agent", ""),
    ("en-US", "human resources", ""),
    ("en-US", "in person", ""),
    ("en-US", "repeat prescription", ""),
    ("en-US", "could you say that again, please?", AGAIN),
    ("en-US", "Sorry?", AGAIN),
    ("en-US", "what are my options", AGAIN),
    ("en-US", "I didn't catch that", AGAIN),
    ("en-US", "I can't hear you", AGAIN),
    ("en-US", "what does it cost", ""),
    ("de-DE", "null", "0"),
    ("de-DE", "zwo", "2"),
    ("de-DE", "Nummer eins", "1"),
    ("de-DE", "die zwei bitte", "2"),
    ("de-DE", "ich nehme den dritten", "3"),
    ("de-DE", "eine Sekunde", ""),
    ("de-DE", "einen Moment", ""),
    ("de-DE", "Ich möchte mit einem Mitarbeiter sprechen.", OPERATOR),
    ("de-DE", "Verbinden Sie mich bitte mit der Zentrale", OPERATOR),
    ("de-DE", "ist da jemand", OPERATOR),
    ("de-DE", "ich würde gerne mit einem richtigen Menschen reden", OPERATOR),
    ("de-DE", "Mitarbeiter gesucht", ""),
    ("de-DE", "bitte nochmal", AGAIN),
    ("de-DE", "Wie bitte?", AGAIN),
    ("de-DE", "können Sie das bitte noch einmal wiederholen", AGAIN),
    ("de-DE", "Ich habe Sie nicht verstanden.", AGAIN),
    ("de-DE", "Wiederholungsrezept", ""),
    ("es-US", "cero", "0"),
    ("es-US", "el uno, por favor", "1"),
    ("es-US", "número dos", "2"),
    ("es-US", "la primera opción", "1"),
    ("es-US", "oprimo el séptimo", "7"),
    ("es-US", "un segundo", ""),
    ("es-US", "una pregunta", ""),
    ("es-US", "quiero hablar con una persona", OPERATOR),
    ("es-US", "Me puede comunicar con un representante, por favor", OPERATOR),
    ("es-US", "servicio al cliente", OPERATOR),
    ("es-ES", "póngame con la centralita", OPERATOR),
    ("es-US", "¿hay alguien ahí?", OPERATOR),
    ("es-US", "agente de viajes", ""),
    ("es-US", "recursos humanos", ""),
    ("es-US", "¿me lo puede repetir?", AGAIN),
    ("es-US", "otra vez por favor", AGAIN),
    ("es-MX", "¿Mande?", AGAIN),
    ("es-ES", "no le he entendido", AGAIN),
    ("fr-FR", "zéro", "0"),
    ("fr-FR", "le un", "1"),
    ("fr-FR", "numéro deux", "2"),
    ("fr-FR", "La première option, s'il vous plaît.", "1"),
    ("fr-FR", "cette", "7"),
    ("fr-FR", "une seconde", ""),
    ("fr-FR", "un instant", ""),
    ("fr-FR", "une question", ""),
    ("fr-FR", "Je voudrais parler à quelqu'un.", OPERATOR),
    ("fr-FR", "passez-moi un conseiller", OPERATOR),
    ("fr-FR", "l'accueil", OPERATOR),
    ("fr-CA", "le service à la clientèle s'il vous plaît", OPERATOR),
    ("fr-CA", "un préposé", OPERATOR),
    ("fr-FR", "agent immobilier", ""),
    ("fr-FR", "vous pouvez répéter, s'il vous plaît ?", AGAIN),
    ("fr-FR", "je n'ai pas compris", AGAIN),
    ("fr-FR", "Pardon ?", AGAIN),
    ("fr-FR", "le répertoire", ""),
]

ANSWERS: Final = [
    # region, what is said after "did you say", whether it is a yes, a no, or neither
    ("en-US", "Yes.", "yes"),
    ("en-US", "That's right", "yes"),
    ("en-US", "sure", "yes"),
    ("en-US", "That's not right", "no"),
    ("en-US", "That isn't correct", "no"),
    ("en-US", "I'm not sure", "no"),
    ("en-US", "not billing", "no"),
    ("en-US", "no, billing", "no"),
    ("en-US", "I don't think so", "no"),
    ("en-US", "billing", ""),
    ("de-DE", "ja genau", "yes"),
    ("de-DE", "das stimmt", "yes"),
    ("de-DE", "Das stimmt nicht.", "no"),
    ("de-DE", "nicht richtig", "no"),
    ("de-DE", "keine Rechnung", "no"),
    ("de-DE", "ich bin nicht sicher", "no"),
    ("de-DE", "nein", "no"),
    ("es-US", "Sí, claro", "yes"),
    ("es-US", "así es", "yes"),
    ("es-US", "no es correcto", "no"),
    ("es-US", "no estoy seguro", "no"),
    ("es-US", "no", "no"),
    ("fr-FR", "oui, c'est ça", "yes"),
    ("fr-FR", "ce n'est pas ça", "no"),
    ("fr-FR", "je ne suis pas sûr", "no"),
    ("fr-FR", "non", "no"),
]


@pytest.mark.parametrize(("tag", "speech", "meaning"), COMMANDS)
def test_what_people_say_in_a_menu_is_understood(tag: str, speech: str, meaning: str) -> None:
    """A key, a person or a repeat is understood in other words; what only resembles one is not."""
    words = words_of(tag)
    said = fold_words(speech)
    found = {key_of_words(words, said), *commanded_steps(words, said)} - {""}
    if meaning == "0":
        found.discard(OPERATOR)  # the key 0 is a person
    assert found == {meaning} - {""}


@pytest.mark.parametrize(("tag", "speech", "meaning"), ANSWERS)
def test_yes_and_no_are_told_apart(tag: str, speech: str, meaning: str) -> None:
    """An answer with a "not" in it is a no, even with a yes-word."""
    words = words_of(tag)
    said = fold_words(speech)
    assert is_yes(words, said) == (meaning == "yes")
    assert is_no(words, said) == (meaning == "no")


def test_accents_and_apostrophes_are_compared_however_they_are_written() -> None:
    """Capital letters, curly apostrophes and letters in two halves make no difference."""
    french = words_of("fr-FR")
    for speech in ("QUELQU'UN", "quelqu\u2019un", "Quelqu'un."):
        assert fold_words(speech) in french.operator
    assert french.keys[fold_words("ZE\u0301RO")] == "0"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_hints_name_the_keys_in_order(language: str) -> None:
    """Speech recognition is told the commonest name of each key, from 0 to 9, as it is written."""
    words = first_words(language)
    assert [words.keys[fold_words(hint)] for hint in words.hints] == [*"0123456789"]


# The lists do not get in each other's way.


def lists_of(words: Words) -> dict[str, tuple[str, ...]]:
    """All lists of phrases that a file holds, by name."""
    return {
        "yes": words.yes,
        "no": words.no,
        "negations": words.negations,
        "operator": words.operator,
        "repeat": words.repeat,
        "filler": words.filler,
        "keys": (*words.keys,),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_yes_has_a_no_in_it(language: str) -> None:
    """A phrase that agrees holds no word that denies: it would never count."""
    words = first_words(language)
    assert [phrase for phrase in words.yes if mentions_any(phrase, words.no)] == []
    assert [phrase for phrase in words.yes if mentions_any(phrase, words.negations)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_counts_is_no_filler(language: str) -> None:
    """No phrase that means something consists of words that are ignored."""
    words = first_words(language)
    for name, phrases in lists_of(words).items():
        if name in ("operator", "repeat", "keys"):
            assert [phrase for phrase in phrases if not without_filler(words, phrase)] == [], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phrase_means_one_thing(language: str) -> None:
    """No phrase stands in two lists, twice in one, or both as a key and as a key alone."""
    words = first_words(language)
    meanings: dict[str, str] = {}
    for name, phrases in lists_of(words).items():
        for phrase in phrases:
            assert phrase not in meanings, (phrase, name, meanings[phrase])
            meanings[phrase] = name
    assert not words.keys.keys() & words.keys_alone.keys()


def test_a_language_is_chosen_by_words_of_its_own() -> None:
    """No word chooses two languages, and each language is chosen by its own name."""
    chosen: list[str] = []
    for language in LANGUAGES:
        words = first_words(language)
        assert fold_words(words.name) in words.chosen_by
        chosen += words.chosen_by
    assert len(chosen) == len({*chosen})


# The loader.


def folder_with(tmp_path: Path, **files: str | bytes) -> Path:
    """A folder of words files, as a repository has it."""
    folder = tmp_path / "phone_line" / "words"
    folder.mkdir(parents=True)
    for language, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"{language}.toml").write_bytes(content)
    return folder


def shipped(language: str = "en") -> str:
    return (FOLDER / f"{language}.toml").read_text(encoding="utf-8")


def test_nothing_is_read_before_a_language_is_asked_for() -> None:
    """A cold start pays for the language in use alone, and importing the module reads nothing."""
    program = "import sys, phone_line.words; print('tomllib' in sys.modules)"
    root = FOLDER.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_broken_file_of_another_language_does_no_harm(tmp_path: Path) -> None:
    """Only the file of the language in use is read; the others are known by name."""
    folder = folder_with(tmp_path, de=shipped("de"), en=b"\xff[[[")
    (folder / "en.toml~").write_text("an editor's copy")
    (folder / "notes.txt").write_text("a translator's")
    assert languages(folder) == ["de", "en"]
    assert read_words("de-AT", folder).problems == ()


def test_a_language_without_a_file_is_told_with_those_that_have_one(tmp_path: Path) -> None:
    """An unknown language names the file that it would need, and the languages that exist."""
    folder = folder_with(tmp_path, de="", en="")
    words = read_words("it-IT", folder)
    assert words.problems == (
        "phone_line/words/it.toml: there is no such file (there are: de, en)",
    )
    assert words.sentences == {}
    assert read_words("en-US", tmp_path / "nowhere").problems != ()


def test_a_file_saved_on_windows_is_read(tmp_path: Path) -> None:
    """A mark at the beginning and line ends of two signs change nothing."""
    text = "\ufeff" + shipped().replace("\n", "\r\n")
    words = read_words("en-US", folder_with(tmp_path, en=text))
    assert words.problems == ()
    assert words.sentences == words_of("en-US").sentences
    assert words.place_of("greeting") == words_of("en-US").place_of("greeting")


def test_a_file_in_an_old_encoding_is_named_with_the_line(tmp_path: Path) -> None:
    """Letters that are no UTF-8 are told with their line."""
    lines = shipped("de").split("\n")
    first = next(number for number, line in enumerate(lines, 1) if not line.isascii())
    folder = folder_with(tmp_path, de=shipped("de").encode("latin-1", "replace"))
    assert read_words("de-DE", folder).problems == (
        f"phone_line/words/de.toml, line {first}: this is not UTF-8 text",
    )


FAULTS: Final = [
    # what stands in en.toml, what somebody makes of it, what is said of that line
    ("\n[sentences]", "\n[sentenses]", "nothing is called 'sentenses'; 'sentences' may be meant"),
    ("\nyes = ", "\nyess = ", "nothing is called 'yess' in [understood]; 'yes' may be meant"),
    ("\nname = ", "\nnames = ", "nothing is called 'names'; 'name' may be meant"),
    ("\n[understood.keys]", "\n[understood.kees]", "nothing is called 'kees' in [understood]"),
    ("\nno = ", "\nno = 7\nnope = ", "'no' must be text in quotation marks"),
    ("\nno = ", "\nno = ''\nnope = ", "'no' has no words"),
    ("\nno = ", "\n[understood.no]\nyes = ", "'no' must be text in quotation marks"),
    ("\ngreeting = ", "\ngreeting = ['a', 'b']\ngreetings = ", "'greeting' must be text"),
    ("\nen-US = ", "\nen_US = ", "'en_US' is no region of this language"),
    ("\nen-US = ", "\nen-us = ", "'en-us' is no region of this language"),
    ("\nen-US = ", "\nde-DE = ", "'de-DE' is no region of this language"),
    ("\nen-US = ", "\nen-US = 'Joanna (US)'\nen-CA = ", "'Joanna (US)' is no voice"),
    ("\n[sentences.en-GB]", "\n[sentences.en_GB]", "'en_GB' is no region of this language"),
    ("\n[sentences.en-GB]", "\n[sentences.en-GB]\nbussy = 'x'", "there is no sentence 'bussy'"),
    ("\n[sentences.en-GB]", "\nen-AU = 'x'\n[sentences.en-GB]", "'en-AU' must be a table"),
    ("\n[understood.keys]", "\nkeys = 'one'\n[odd]", "'keys' must be a table of its own"),
    ("\n9 = ", "\n10 = 'ten'\n9 = ", "nothing is called '10' in [understood.keys]"),
    ("\n9 = ", "\n9 = 'ONE, nine'\n#", "'one' means the key 1 already"),
    ("\n[sentences.en-GB]", '\n[sentences."en-GB"]\n"bussy" = "x"', "no sentence 'bussy'"),
    ("\n9 = ", "\n#", "'9' is missing in [understood.keys]"),
    ("\nrepeat = ", "\nrepeet = ", "'repeat' is missing in [understood]"),
    ("\nname = ", "\nname = 'a'\nname = ", "Is a quotation mark or a bracket missing?"),
    ("\n[voices]", "\n[voices", "Is a quotation mark or a bracket missing?"),
    ("\nname = ", "\nname = 'English\nchosen_by = ", "Is a quotation mark or a bracket missing?"),
]
ELSEWHERE: Final = ("'9' is", "'repeat' is", "'one' means")  # not told at the changed line


@pytest.mark.parametrize(("old", "new", "problem"), FAULTS)
def test_a_slip_in_a_file_is_named_with_file_and_line(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    """Whatever an owner or a translator gets wrong is one plain sentence with its place."""
    assert old in shipped()
    folder = folder_with(tmp_path, en=shipped().replace(old, new, 1))
    problems = read_words("en-US", folder).problems
    told = [line for line in problems if problem in line]
    assert len(told) == 1, problems
    file, _, line = told[0].partition(":")[0].partition(", line ")
    assert file == "phone_line/words/en.toml"
    changed = shipped().partition(old)[0].count("\n") + 2
    near = new.strip().count("\n") + 1
    number = int(line.partition(",")[0])
    if problem.startswith(ELSEWHERE):
        assert 0 < number <= shipped().count("\n")
    else:
        assert changed <= number <= changed + near


def test_a_list_that_is_never_closed_is_told(tmp_path: Path) -> None:
    """A forgotten mark at the end of a file is told there, although it was forgotten above."""
    text = shipped() + "never = '''\n\n"
    problems = read_words("en-US", folder_with(tmp_path, en=text)).problems
    assert len(problems) == 1
    last = text.count("\n")
    assert problems[0].startswith(f"phone_line/words/en.toml, line {last}, or just above: ")


def test_an_empty_file_says_all_that_it_lacks(tmp_path: Path) -> None:
    """Everything that a words file needs is named at once, and nothing is raised."""
    words = read_words("en-US", folder_with(tmp_path, en="\n# to be done\n"))
    file = "phone_line/words/en.toml"
    assert f"{file}: 'name' is missing" in words.problems
    assert f"{file}: 'repeat' is missing in [understood]" in words.problems
    assert f"{file}: there is no voice in [voices]" in words.problems


def test_what_fits_is_there_beside_what_is_wrong(tmp_path: Path) -> None:
    """One slip takes no other sentence away, so that a caller still hears something."""
    text = shipped().replace("\ngreeting = ", "\ngreeting = 7\ngreetings = ", 1)
    words = read_words("en-US", folder_with(tmp_path, en=text))
    assert "greeting" not in words.sentences
    assert words.sentences["goodbye"] == words_of("en-US").sentences["goodbye"]
    assert words.yes == words_of("en-US").yes


@pytest.mark.parametrize("tag", REGIONS)
def test_the_place_of_a_sentence_is_its_line(tag: str) -> None:
    """A sentence is found where the region says it, else where the language does."""
    words = words_of(tag)
    lines = words.file.read_text(encoding="utf-8").split("\n")
    for name, sentence in words.sentences.items():
        file, _, number = words.place_of(name).partition(", line ")
        assert file == f"phone_line/words/{words.file.name}"
        line = lines[int(number) - 1]
        assert line.startswith(f"{name} = ")
        assert sentence in line
    assert words.place_of("no such sentence") == f"phone_line/words/{words.file.name}"


@pytest.mark.parametrize(
    ("sentence", "blanks"),
    [
        ("For {name}, press {key}.", []),
        ("{name} {nam} {name}", ["{nam}"]),
        ("For { name }, press {Key}.", ["{ name }", "{Key}"]),
        ("For {name, press key}.", ["{name, press key}"]),
        ("For {name", ["{name"]),
        ("For name}", ["}"]),
        ("{{name}}", ["{", "}"]),
        ("{}", ["{}"]),
        ("", []),
    ],
)
def test_braces_that_nothing_fills_are_found(sentence: str, blanks: list[str]) -> None:
    """A placeholder that would be read aloud is told as it is written."""
    assert unfilled(sentence, ("name", "key")) == blanks
