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
