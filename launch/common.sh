# Sourced by the scripts beside it: takes --dry-run off their arguments, and
# gives them `run`, which then shows a command instead of running it.
set -euo pipefail

DRY_RUN=
if [[ ${1:-} == --dry-run ]]; then
  DRY_RUN=1
  shift
fi

# The words as a shell would have to be given them, quoted where they need it.
quoted() {
  local word flag out=()
  for word; do
    if [[ $word =~ ^(--[A-Za-z0-9_.-]+=)(.*)$ ]]; then
      flag=${BASH_REMATCH[1]} word=${BASH_REMATCH[2]}
    else
      flag=
    fi
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    out+=("$flag$word")
  done
  echo "${out[*]}"
}

run() {
  if [[ $DRY_RUN ]]; then quoted "$@"; else "$@"; fi
}
