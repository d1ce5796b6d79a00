#!/bin/sh
# Orders a film over HTTP with curl, waits until it is over, and fetches it.
#   REELHAUL=http://127.0.0.1:3000 TOKEN=… ./film.sh "a paper boat" https://example.com/boat.png boat.mp4
# The picture may be a file: it is uploaded.
set -eu

ask() {
  # -f: an answer that is not a success ends the script. What was wrong is in the problem document (see it with --fail-with-body).
  curl -fsS -H "Authorization: Bearer $TOKEN" "$@"
}
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

image="\"$2\""
if [ -f "$2" ]; then
  input=$(ask "$REELHAUL/v1/inputs" --data-binary "@$2" | sed 's/,"sizeBytes".*//' | field id)
  image="{\"input\":\"$input\"}"
fi

id=$(ask "$REELHAUL/v1/generations" -H 'Content-Type: application/json' -H "Idempotency-Key: film-$3" \
  -d "{\"prompt\":\"$1\",\"image\":$image}" | sed 's/,"state".*//' | field id)
echo "generation $id"

# Programs listen to /v1/generations/$id/events, or are notified; a script may simply look now and then.
state=queued
while :; do
  state=$(ask "$REELHAUL/v1/generations/$id" | sed 's/,"tenant".*//' | field state)
  case $state in succeeded | failed | expired | canceled) break ;; esac
  sleep "${EVERY_SECONDS:-5}"
done
echo "state $state"
[ "$state" = succeeded ]
ask -L -o "$3" "$REELHAUL/v1/generations/$id/assets/video"
echo "saved $3"
