"""Completion scripts for three shells, from one table. Each does the same: it walks through the words so far.

The words say which *groups* of options there are: that of the command, one that commands share, and one of each class
that was named (``model:LeNet``; before one is named, ``model:`` with the settings of all). A group says what may
follow each of its options. Every name and text is quoted for its shell, so that none can be taken for code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

Kind = Literal["flag", "words", "file", "folder", "yaml", "any"]  # what follows an option; nothing follows a flag


class Option(NamedTuple):
    """One option under all its names, or what a command takes without a name.

    Attributes:
        words: What may follow, for the kind ``words``.
        many: Whether several values follow.
    """

    names: tuple[str, ...]
    help: str
    kind: Kind
    words: tuple[str, ...] = ()
    many: bool = False


@dataclass
class Group:
    """Options that come together, and what is taken without a name."""

    options: list[Option]
    positional: Option | None = None


class Table(NamedTuple):
    """Everything that can be completed.

    Attributes:
        commands: Description and names of groups of each.
        groups: The options before any command under the name of "".
        classes: Settings by class, by the option that names it: ``model``, ``data``, ``trainer.callbacks``.
    """

    commands: dict[str, tuple[str, tuple[str, ...]]]
    groups: dict[str, Group]
    classes: dict[str, dict[str, list[Option]]]

    def options(self) -> Iterator[tuple[str, list[Option]]]:
        """The options of each group, those of classes among them."""
        for name, group in self.groups.items():
            yield name, group.options
        for place, classes in self.classes.items():
            if place != "trainer.callbacks":  # of a list: one is named, then come its settings
                yield f"{place}:", _union(chain.from_iterable(classes.values()))
            for name, options in classes.items():
                yield f"{place}:{name}", options

    def values(self) -> Iterator[tuple[list[str], Option]]:
        """What follows: keys ``GROUP OPTION`` that have the same answer; options with no particular answer are none."""
        found: dict[tuple[Kind, tuple[str, ...], bool], tuple[list[str], Option]] = {}

        def add(group: str, option: Option) -> None:
            if option.kind != "any" or option.many:
                keys, _ = found.setdefault(option[2:], ([], option))
                keys += [f"{group} {name}" for name in option.names or ("",)]

        for group, options in self.options():
            for option in options:
                place = option.names[0].removeprefix("--").rstrip("+").removesuffix(".help")
                if place in self.classes:
                    option = Option(option.names, option.help, "words", tuple(self.classes[place]))
                add(group, option)
        for group, content in self.groups.items():
            if content.positional:
                add(group, content.positional)
        add("", Option((), "", "words", tuple(self.commands)))
        yield from found.values()


def _union(options: Iterable[Option]) -> list[Option]:
    """Each name once, with all the values that it can have somewhere."""
    every: dict[str, Option] = {}
    for option in options:
        for name in option.names:
            words = (*every[name].words, *option.words) if name in every else option.words
            every[name] = option._replace(names=(name,), words=tuple(dict.fromkeys(words)))
    return list(every.values())


def quote(text: str) -> str:
    """For bash and zsh, in which nothing is special within single quotes.

    >>> print(quote("it's $(here)"))
    'it'\\''s $(here)'
    """
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _described(text: str, option: Option) -> str:
    """For zsh's ``_describe``: name and description between which the colon stands."""
    return quote(text.replace("\\", "\\\\").replace(":", "\\:") + (f":{option.help}" if option.help else ""))


def _each(options: Iterable[Option], write: Callable[[str, Option], str]) -> str:
    return " ".join(write(name, option) for option in options for name in option.names)


def _cases(table: Table, write: Callable[[str, Option], str]) -> dict[str, str]:
    """The parts of a bash or zsh script that hold the table."""
    parts = {
        "groups": [f"    ({quote(name)}) groups=({' '.join(map(quote, of))}) ;;" for name, (_, of) in _commands(table)],
        "options": [f"    ({quote(name)}) found+=({_each(options, write)}) ;;" for name, options in table.options()],
        "values": [
            f"    ({'|'.join(map(quote, keys))}) kind={option.kind} many={'yes' if option.many else ''}"
            f" found=({' '.join(write(word, Option((), '', 'any')) for word in option.words)}) ;;"
            for keys, option in table.values()
        ],
        "commands": [_each([Option((name,), text, "any") for name, (text, _) in _commands(table)], write)],
    }
    return {name: "\n".join(lines) for name, lines in parts.items()}


def _commands(table: Table) -> Iterable[tuple[str, tuple[str, tuple[str, ...]]]]:
    return table.commands.items()


def _fill(template: str, parts: dict[str, str]) -> str:
    return re.sub("@([a-z]+)@", lambda found: parts[found[1]], template)


def bash(table: Table) -> str:
    """For bash from 3.2 on."""
    return _fill(_TABLE + _WALK + _BASH, _cases(table, lambda text, _: quote(text)))


def zsh(table: Table) -> str:
    """For zsh, with descriptions."""
    return "#compdef lightning-cifar\n" + _fill(_TABLE + _WALK + _ZSH, _cases(table, _described))


def fish(table: Table) -> str:
    """For fish, with descriptions."""

    def described(name: str, option: Option) -> str:
        return _fish_quote(f"{name}\t{option.help}" if option.help else name)

    def case(keys: Iterable[str], *words: str) -> str:
        return f"        case {' '.join(map(_fish_quote, keys))}\n            printf '%s\\n' {' '.join(words)}"

    parts = {
        "groups": [case([name], *map(_fish_quote, of)) for name, (_, of) in _commands(table)],
        "options": [case([name], _each(options, described)) for name, options in table.options() if options],
        "values": [
            case(keys, option.kind, "yes" if option.many else "no", *map(_fish_quote, option.words))
            for keys, option in table.values()
        ],
        "commands": [_each([Option((name,), text, "any") for name, (text, _) in _commands(table)], described)],
    }
    return _fill(_FISH, {name: "\n".join(lines) for name, lines in parts.items()})


RENDERERS: dict[str, Callable[[Table], str]] = {"bash": bash, "zsh": zsh, "fish": fish}

_TABLE = """\
# Completes lightning-cifar, without starting it. Written by: lightning-cifar completion

_lightning_cifar_groups() {  # of command $1
    case $1 in
@groups@
    esac
}

_lightning_cifar_options() {  # of group $1, added to those found
    case $1 in
@options@
    esac
}

_lightning_cifar_values() {  # what follows option $2 of group $1
    case "$1 $2" in
@values@
    (*) return 1 ;;
    esac
}
"""

# The same for bash and zsh. The variables are those of the function that calls.
_WALK = """
_lightning_cifar_look() {  # what follows option $1
    local group
    for group in "${groups[@]}"; do
        _lightning_cifar_values "$group" "$1" && return
    done
    kind=any many= found=()
    return 1
}

_lightning_cifar_take() {  # option $1 got the value $2: if that is a class, its group takes the place of "all classes"
    local -a kept=()
    local group option=${1#--}
    option=${option%+}
    for group in "${groups[@]}"; do
        [[ $group == "$option:"* ]] && group=$option:${2##*.}
        kept+=("$group")
    done
    groups=("${kept[@]}")
}

_lightning_cifar_walk() {  # through the words before the one that is completed
    local word
    for word in "$@"; do
        if [[ -z $command ]]; then
            [[ $word == -* ]] && continue
            command=$word
            _lightning_cifar_groups "$word"
            continue
        fi
        case $word in
        (-[0-9]*) ;;
        (-*=*) _lightning_cifar_take "${word%%=*}" "${word#*=}"; active=; continue ;;
        (-*)
            active=$word
            _lightning_cifar_look "$word"
            [[ $kind == flag ]] && active=
            continue ;;
        esac
        if [[ -n $active ]]; then
            _lightning_cifar_take "$active" "$word"
            [[ -z $many ]] && active=
        fi
    done
}

_lightning_cifar_find() {  # what the word $1 may become: kind and found; head is what it keeps
    local group
    head= kind=words found=()
    if [[ -z $command ]]; then
        found=(@commands@)
        _lightning_cifar_options ''
    elif [[ $1 == -*=* ]]; then
        head=${1%%=*}=
        _lightning_cifar_look "${1%%=*}"
    elif [[ -n $active && ! ( -n $many && $1 == -* ) ]]; then
        _lightning_cifar_look "$active"
    elif [[ $1 == -* ]] || ! _lightning_cifar_look ''; then
        kind=words found=()
        for group in "${groups[@]}"; do
            _lightning_cifar_options "$group"
        done
    fi
}
"""

_BASH = """
_lightning_cifar() {
    local -a line=() groups=() found=()
    local i word cur command= active= kind= many= head= glue=
    # bash cuts words at "=" and hands on the pieces.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#line[@]} -gt 0 && ( -n $glue || $word == =* ) ]]; then
            line[${#line[@]} - 1]+=$word
        else
            line+=("$word")
        fi
        [[ $word == = && -z $glue ]] && glue=yes || glue=
    done
    i=$((${#line[@]} - 1))
    cur=${line[i]}
    _lightning_cifar_walk "${line[@]:0:i}"
    _lightning_cifar_find "$cur"
    cur=${cur#"$head"}
    [[ $COMP_WORDBREAKS == *=* ]] && head=
    COMPREPLY=()
    case $kind in
    (words)
        for word in "${found[@]}"; do
            [[ $word == "$cur"* ]] && printf -v word %q "$word" && COMPREPLY+=("$head$word")
        done ;;
    (file|yaml|folder)
        compopt -o filenames 2>/dev/null
        [[ $kind == folder ]] && i=-d || i=-f
        while IFS= read -r word; do
            if [[ $kind != yaml || $word == *.yaml || $word == *.yml || -d ${word/#\\~/$HOME} ]]; then
                COMPREPLY+=("$head$word")
            fi
        done < <(compgen "$i" -- "$cur") ;;
    esac
}

complete -F _lightning_cifar lightning-cifar
"""

_ZSH = """
_lightning-cifar() {
    local -a groups found
    local command= active= kind= many= head=
    _lightning_cifar_walk "${(@Q)words[2,CURRENT-1]}"
    _lightning_cifar_find "$PREFIX"
    [[ -n $head ]] && compset -P 1 '*='
    case $kind in
    (words) _describe -t lightning-cifar 'lightning-cifar' found ;;
    (file) _files ;;
    (folder) _files -/ ;;
    (yaml) _files -g '*.(yaml|yml)' ;;
    esac
}

if [[ ${funcstack[1]} == _lightning-cifar ]]; then
    _lightning-cifar "$@"
else
    compdef _lightning-cifar lightning-cifar
fi
"""

_FISH = """\
# Completes lightning-cifar, without starting it. Written by: lightning-cifar completion

function __lightning_cifar_groups --description 'of command 1'
    switch $argv[1]
@groups@
    end
end

function __lightning_cifar_options --description 'of group 1'
    switch $argv[1]
@options@
    end
end

function __lightning_cifar_values --description 'what follows option 2 of group 1: kind, whether many, words'
    switch "$argv[1] $argv[2]"
@values@
        case '*'
            return 1
    end
end

function __lightning_cifar_look --description 'the same of option 1 in the groups that follow'
    for group in $argv[2..-1]
        __lightning_cifar_values "$group" "$argv[1]"; and return
    end
    printf '%s\\n' any no
    return 1
end

function __lightning_cifar_offer --description 'words, or paths, of kind 2 that complete 3, after the head 1'
    set -l found
    switch $argv[2]
        case words
            set found $argv[4..-1]
        case file
            set found (__fish_complete_path "$argv[3]")
        case folder
            set found (__fish_complete_directories "$argv[3]")
        case yaml
            set found (__fish_complete_path "$argv[3]" | string match --regex '^[^\\t]*(?:/|\\.ya?ml)(?:\\t.*)?$')
    end
    for each in $found
        printf '%s%s\\n' $argv[1] $each
    end
end

function __lightning_cifar
    set -l cur (commandline --current-token)
    set -l words (commandline --cut-at-cursor --current-process --tokenize)
    set -l command
    set -l active
    set -l look any no
    set -l groups
    for word in $words[2..-1]
        if test -z "$command"
            string match --quiet -- '-*' $word; and continue
            set command $word
            set groups (__lightning_cifar_groups $word)
            continue
        end
        set -l option $active
        set -l value $word
        if string match --quiet --regex -- '^-[^0-9]' $word
            set active
            if string match --quiet -- '*=*' $word
                set option (string replace --regex '=.*' '' -- $word)
                set value (string replace --regex '^[^=]*=' '' -- $word)
            else
                set look (__lightning_cifar_look $word $groups)
                test "$look[1]" != flag; and set active $word
                continue
            end
        else if test "$look[2]" = no
            set active
        end
        # A class: its group takes the place of that of all classes.
        set -l place (string replace --regex -- '^--(.*?)\\+?$' '$1' "$option"):
        set -l kept
        for group in $groups
            if string match --quiet -- "$place*" $group
                set -a kept $place(string replace --regex -- '.*\\.' '' $value)
            else
                set -a kept $group
            end
        end
        set groups $kept
    end
    if test -z "$command"
        printf '%s\\n' @commands@
        __lightning_cifar_options ''
    else if string match --quiet --regex -- '^-.*=' $cur
        set -l head (string replace --regex '=.*' '' -- $cur)
        set look (__lightning_cifar_look $head $groups)
        __lightning_cifar_offer $head= $look[1] (string replace --regex '^[^=]*=' '' -- $cur) $look[3..-1]
    else if test -n "$active"; and not begin; test "$look[2]" = yes; and string match --quiet -- '-*' $cur; end
        set look (__lightning_cifar_look $active $groups)
        __lightning_cifar_offer '' $look[1] "$cur" $look[3..-1]
    else
        set look (__lightning_cifar_look '' $groups)
        if string match --quiet -- '-*' $cur; or test "$look[1]" = any
            for group in $groups
                __lightning_cifar_options $group
            end
        else
            __lightning_cifar_offer '' $look[1] "$cur" $look[3..-1]
        end
    end
end

complete --command lightning-cifar --no-files --arguments '(__lightning_cifar)'
"""
