#!/usr/bin/env python3
"""Make one include folder per layer: LINKS/<layer>/<layer> -> SRC/<layer>.

A layer that lists LINKS/base on its include path can say #include "base/error.h" and nothing else; that is how the build enforces
the order of the layers (ARCHITECTURE.md).
"""
import os
import sys

links, src = sys.argv[1:3]
for name in sorted(os.listdir(src)):
    if not os.path.isdir(os.path.join(src, name)):
        continue
    os.makedirs(os.path.join(links, name), exist_ok=True)
    link = os.path.join(links, name, name)
    if not os.path.islink(link):
        os.symlink(os.path.join(src, name), link)
