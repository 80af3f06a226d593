
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
