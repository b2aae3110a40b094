#!/usr/bin/env bash
# carry.sh PROGRAM FOLDER: puts the program kdacheck, the shared libraries it needs beyond glibc, the Python package and the
# adapters into FOLDER, to run on a machine of the same instruction set that has none of them. `FOLDER/kdacheck` starts it.
set -eu
program=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder/libraries" "$folder/python"
worker=$(dirname "$program")/kernels/kdacheck_plugin_worker # supervises every foreign kernel
strip -o "$folder/libraries/kdacheck" "$program"
strip -o "$folder/libraries/kdacheck_plugin_worker" "$worker"
ldd "$program" "$worker" | awk '$2 == "=>" { print $3 }' | sort -u | grep -Ev '/(libc|libm|libpthread|libdl|librt)\.so' | xargs -I{} cp -L {} "$folder/libraries/"
cp -r "$here/../kdacheck" "$here" "$folder/python/"
cat > "$folder/kdacheck" <<'START'
#!/usr/bin/env bash
# By the loader's own option: the processes that kdacheck starts find their libraries where they always do.
here=$(cd "$(dirname "$0")" && pwd)
export KDACHECK_WORKER_PATH=$here/worker KDACHECK_PYTHON_PACKAGE=$here/python PYTHONPATH=$here/python/adapters${PYTHONPATH:+:$PYTHONPATH}
exec /lib64/ld-linux-x86-64.so.2 --library-path "$here/libraries" "$here/libraries/kdacheck" "$@"
START
cat > "$folder/worker" <<'START'
#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
exec /lib64/ld-linux-x86-64.so.2 --library-path "$here/libraries" "$here/libraries/kdacheck_plugin_worker" "$@"
START
chmod +x "$folder/kdacheck" "$folder/worker"
