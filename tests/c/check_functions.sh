#!/bin/sh
# Every function that the header declares is used by a test: check_functions.sh HEADER TESTS_DIR
set -eu

functions=$(grep -o '^[a-z].*[ *]segue_[a-z0-9_]*(' "$1" | grep -v '^typedef' |
    sed 's/.*[ *]\(segue_[a-z0-9_]*\)($/\1/' | sort -u)
if [ "$(echo "$functions" | wc -l)" -lt 100 ]; then
    echo "only $(echo "$functions" | wc -l) functions were found in $1: has its form changed?" >&2
    exit 1
fi
missing=''
for function in $functions; do
    grep -qw "$function" "$2"/*.c || missing="$missing $function"
done
if [ -n "$missing" ]; then
    echo "no test uses:$missing" >&2
    exit 1
fi
echo "$(echo "$functions" | wc -l) functions, each used by a test"
