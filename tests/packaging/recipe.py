"""Parses the recipe as bitbake does, with bitbake's own parser, and prints what came of it.

    recipe.py RECIPE [APPEND.bbappend]... [NAME=VALUE]...

NAME=VALUE are settings of a layer, as in local.conf. Prints the variables below as JSON, which of them the build
gets in its environment, or bitbake's errors, with status 1. The classes of OpenEmbedded that recipes inherit are
empty here.
"""

import json
import logging
import os
import sys
import tempfile
import types

# The package on PyPI has bitbake's parser, but not its server of hashes, which a module of the parser imports.
for name in ["hashserv", "hashserv.client"]:
    sys.modules[name] = types.ModuleType(name)
sys.modules["hashserv"].client = sys.modules["hashserv.client"]

import bb
import bb.build
import bb.data_smart
import bb.fetch2
import bb.parse
import bb.parse.parse_py
import bb.utils

SHOWN = (
    "PV S SRC_URI BALENA_VERSION BALENA_BOOT_MOUNT CARGO_PROFILE_RELEASE_PANIC do_install HOSTAPP_HOOKS PACKAGES"
    " FILES:balena-extension-runtime-rollback FILES:balena-extension-runtime-metrics"
).split()
CLASSES = "cargo cargo-update-recipe-crates systemd base".split()
BITBAKE_CONF = {
    "BPN": "${PN}",
    "PN": "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0]}",
    "PV": "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[1]}",
    "WORKDIR": "/work",
    "TOPDIR": "/top",
    "SRCREV": "INVALID",
    "__bbclasstype": "recipe",
    "BB_NO_NETWORK": "1",
    "OVERRIDES": "pn-${PN}",
}


def main():
    recipe = os.path.realpath(sys.argv[1])
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/classes")
        for name in CLASSES:
            open(f"{folder}/classes/{name}.bbclass", "w").close()
        data = bb.data_smart.DataSmart()
        bb.parse.siggen = bb.siggen.init(data)
        for name, value in BITBAKE_CONF.items():
            data.setVar(name, value)
        data.setVar("BBPATH", folder + ":" + os.path.dirname(recipe))
        data.setVar("DL_DIR", folder)
        data.setVar("PERSISTENT_DIR", folder)
        data.setVar("FILE", recipe)
        appends = [word for word in sys.argv[2:] if word.endswith(".bbappend")]
        data.setVar("__BBAPPEND", " ".join(map(os.path.realpath, appends)))
        for setting in sys.argv[2:]:
            if setting not in appends:
                data.setVar(*setting.split("=", 1))
        bb.event.register_all = lambda *_: None
        parsed = bb.parse.handle(recipe, data)[""]
        # Whether the fetchers understand every address.
        bb.fetch2.Fetch((parsed.getVar("SRC_URI") or "").split(), parsed)
        shown = {name: parsed.getVar(name) for name in SHOWN}
        shown["exported"] = [name for name in SHOWN if parsed.getVarFlag(name, "export")]
        print(json.dumps(shown))


try:
    main()
except bb.BBHandledException:
    sys.exit(1)
