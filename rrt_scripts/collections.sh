# What the scripts that make shipped files share, sourced before stages.sh: ${collections[@]}, the folders given, each of which has a train.txt.
collections=()
for folder; do
    [ -e "$folder/train.txt" ] || { echo "error: $folder/train.txt: no such file; give folders of photographs with their list" >&2; exit 1; }
    collections+=("$(cd "$folder" && pwd)")
done
