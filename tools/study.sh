#!/usr/bin/env bash
# The study of EXPERIMENTS.md: every mode of docs/method.md section 7, from the same eyes, on the same questions.
#
#   tools/study.sh train MODE SEED [lare train options]    # into runs/study/MODE-SEED
#   tools/study.sh eval  MODE SEED [lare eval options]     # into runs/study/MODE-SEED/SPLIT, all splits
#   tools/study.sh modes                                   # what there is
#
# LARE names the program; by default target/release/lare.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fine='model.language.context=coarse_and_fine'
# A mode without a look of its own is told by the focus term where to attend, as `lare` is told where to look.
attends='model.refocus.scorer=weighted_attention'
wide='model.language.max_positions=768' # room for what is spliced in, and for rationales
said=("$attends" "model.language.says_steps=true" "$wide" 'stages[*].latent_steps=0' 'stages[*].say_rest=true')

# The fields in which a mode differs from configs/study.toml; `-fine`: with all fine features in the context, `-long`: three times the steps.
fields_of() {
    case "$1" in
        lare) ;;
        direct) printf '%s\n' "$attends" 'stages[*].latent_steps=0' ;;
        text-cot) printf '%s\n' "${said[@]}" ;;
        coconut) printf '%s\n' "$attends" 'model.refocus.thinking=hidden' ;;
        pause) printf '%s\n' "$attends" 'model.refocus.thinking=constant' 'stages[*].loss.read=0' ;;
        attend-all) printf '%s\n' 'model.refocus.choice=best' 'model.refocus.patches=64' 'model.refocus.bias=false' ;;
        splice) printf '%s\n' 'model.refocus.thinking=splice' 'model.refocus.choice=best' "$wide" ;;
        crop) printf '%s\n' 'model.refocus.thinking=splice' "$wide" ;;
        no-gate) echo 'model.refocus.gate=false' ;;
        no-align) echo 'stages[*].loss.align=0' ;;
        no-rec) echo 'stages[*].loss.rec=0' ;;
        no-read) echo 'stages[*].loss.read=0' ;;
        no-focus) echo 'stages[*].loss.focus=0' ;;
        no-bias) echo 'model.refocus.bias=false' ;;
        random-patches) echo 'model.refocus.choice=random' ;;
        one-focus) echo 'model.refocus.choice=first' ;;
        projected) echo 'model.refocus.memory=projected' ;;
        patches-*) echo "model.refocus.patches=${1#patches-}" ;;
        looks-*) echo "stages[*].latent_steps=${1#looks-}" ;;
        *-long) fields_of "${1%-long}" && printf '%s\n' 'stages[one and two looks].steps=4200' 'stages[chains].steps=3000' ;;
        *-fine) fields_of "${1%-fine}" && echo "$fine" ;;
        *) echo "error: no mode is called \`$1\`; \`$0 modes\` lists them" >&2 && return 2 ;;
    esac
}

modes=(lare direct text-cot coconut pause attend-all splice crop direct-fine text-cot-fine coconut-fine pause-fine
    no-gate no-align no-rec no-read no-focus no-bias random-patches one-focus projected
    patches-9 patches-16 patches-36 looks-1 looks-2 looks-4
    direct-fine-long coconut-fine-long)

lare="${LARE:-target/release/lare}"
case "${1:-}" in
    modes) printf '%s\n' "${modes[@]}" ;;
    train | eval) : "${2:?a mode is missing}" "${3:?a seed is missing}" ;;&
    train)
        mode="$2" seed="$3"
        fields="$(fields_of "$mode")" # an assignment of its own: an unknown mode ends the script here
        sets=(--set "seed=$seed")
        while read -r field; do
            [[ -z "$field" ]] || sets+=(--set "$field")
        done <<< "$fields"
        "$lare" train configs/study.toml --out "runs/study/$mode-$seed" --init weights/study-eyes --init-only vision.fine.,vision.coarse. \
            "${sets[@]}" "${@:4}"
        ;;
    eval)
        mode="$2" seed="$3" steps=auto
        case "$mode" in direct* | text-cot*) steps=0 ;; esac
        for split in iid style hops dense size; do
            tasks=read,locate,hop,relate
            [[ "$split" != hops ]] || tasks=hop
            "$lare" eval --model "runs/study/$mode-$seed/model" --split "$split" --tasks "$tasks" --count 300 \
                --steps "$steps" --out "runs/study/$mode-$seed/$split" "${@:4}"
        done
        ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
