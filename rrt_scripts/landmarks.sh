# What the scripts on a folder of photographs (real_photos.sh, train_landmarks.sh) share, sourced with $source (the folder) set:
# $train, $views (of $train), $val and $test with their lists and ground truth; six training landmarks are held out for every choice (HELD_OUT=).
# $backbone (BACKBONE=, lite0) names the descriptors, $log is the folder of results, ${whitened[@]} the setting of their whitening.
for file in train.txt test_query.txt test_gallery.txt gnd_landmarks.pkl; do
    [ -e "$source/$file" ] || { echo "error: $source/$file: no such file; the folder must hold it (data/README.md)" >&2; exit 1; }
done
train=$data/landmarks_train views=$data/landmarks_train_views val=$data/landmarks_val test=$data/landmarks_test
stage "holding out training landmarks for every choice"
# shellcheck disable=SC2086
"$py" tools/train_val_split.py "$source/train.txt" "$train" "$val" --name landmarks_val \
    ${HELD_OUT:---landmarks 6 --queries 8 --distractors 400}
mkdir -p "$test"
cp "$source"/test_query.txt "$source"/test_gallery.txt "$test/"
cp "$source"/gnd_landmarks.pkl "$test/gnd_landmarks_test.pkl"
backbone=${BACKBONE:-lite0} log=$logs/rrt_landmarks
[ "$backbone" = lite0 ] || log+=_$backbone
# lite0 whitens by itself.
[ "$backbone" = lite0 ] || : "${WHITENING=--dim 700 --power 0.1}"
whitening=$train/whitening_$backbone.npz whitened=()
[ -z "${WHITENING:-}" ] || whitened=(whitening="$whitening")
