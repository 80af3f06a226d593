
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
            if [[ $kind != yaml || $word == *.yaml || $word == *.yml || -d ${word/#\~/$HOME} ]]; then
                COMPREPLY+=("$head$word")
            fi
        done < <(compgen "$i" -- "$cur") ;;
    esac
}

complete -F _lightning_cifar lightning-cifar
