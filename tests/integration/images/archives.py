# SPDX-License-Identifier: Apache-2.0
"""Image archives made from scratch, good and hostile, for the tests of the image store. Needs nothing but Python."""
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def machine():
    import os
    return ARCHITECTURES.get(os.uname().machine, os.uname().machine)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def entry(name, data=None, kind=tarfile.REGTYPE, target="", mode=0o644, uid=0, gid=0, mtime=1000000000, pax=None,
          device=(0, 0)):
    """One tar member: (TarInfo, data)."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, target, mode, uid, gid, mtime
    info.devmajor, info.devminor = device
    info.size = len(data) if data is not None else 0
    if pax:
        info.pax_headers = pax
    return info, data


def directory(name, mode=0o755, **more):
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name, target, **more):
    return entry(name, kind=tarfile.SYMTYPE, target=target, mode=0o777, **more)


def hardlink(name, target, **more):
    return entry(name, kind=tarfile.LNKTYPE, target=target, **more)


def tar(entries, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "xz":
        return lzma.compress(data)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def can_zstd():
    return shutil.which("zstd") is not None


def plain(members):
    return tar([entry(name, data) for name, data in members])


class Oci:
    """An OCI layout in memory: blobs by digest; every document may be changed before it is added."""

    def __init__(self):
        self.blobs = {}

    def add(self, data, name=None):
        digest = sha(data)
        self.blobs[name or digest] = data
        return {"digest": "sha256:" + digest, "size": len(data)}

    def add_json(self, value, media_type, **more):
        d = self.add(json.dumps(value).encode())
        d["mediaType"] = media_type
        d.update(more)
        return d

    def image(self, layers, config=None, compression=("gzip",), architecture=None, diff_ids=None, system="linux"):
        """Adds configuration, layers (uncompressed tars) and manifest; returns the manifest's descriptor."""
        described = []
        for i, layer in enumerate(layers):
            d = self.add(compress(layer, compression[i % len(compression)]))
            d["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
            described.append(d)
        configuration = self.add_json({
            "architecture": architecture or machine(), "os": system, "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or ["sha256:" + sha(l) for l in layers]}},
            "application/vnd.oci.image.config.v1+json")
        return self.add_json({"schemaVersion": 2, "config": configuration, "layers": described},
                             "application/vnd.oci.image.manifest.v1+json")

    def index(self, manifests):
        return {"schemaVersion": 2, "manifests": manifests}

    def nest(self, manifests, **more):
        return self.add_json(self.index(manifests), "application/vnd.oci.image.index.v1+json", **more)

    def archive(self, manifests, blobs_first=False, extra=()):
        head = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
                ("index.json", json.dumps(self.index(manifests)).encode())]
        blobs = [("blobs/sha256/" + name, data) for name, data in self.blobs.items()]
        return plain((blobs + head if blobs_first else head + blobs) + list(extra))


def oci(layers, **more):
    o = Oci()
    return o.archive([o.image(layers, **more)])


def docker_save(layers, config=None, tag="coracle/test:1", architecture=None, diff_ids=None, links=False):
    """The older form: manifest.json, HEX.json and HEX/layer.tar; with links as docker 20.10 and podman write them."""
    configuration = json.dumps({"architecture": architecture or machine(), "os": "linux", "config": config or {},
                                "rootfs": {"type": "layers",
                                           "diff_ids": diff_ids or ["sha256:" + sha(l) for l in layers]}}).encode()
    name = sha(configuration) + ".json"
    members, names = [entry(name, configuration)], []
    for i, layer in enumerate(layers):
        folder = sha(b"%d" % i + layer)
        members += [directory(folder + "/"), entry(folder + "/VERSION", b"1.0")]
        if links:
            members += [entry(sha(layer) + ".tar", layer), symlink(folder + "/layer.tar", "../" + sha(layer) + ".tar")]
        else:
            members += [entry(folder + "/layer.tar", layer)]
        names.append(folder + "/layer.tar")
    members.append(entry("manifest.json", json.dumps([{"Config": name, "RepoTags": [tag], "Layers": names}]).encode()))
    members.append(entry("repositories", b"{}"))
    return tar(members)
