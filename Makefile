# Every target works on a fresh Debian 12 as root with make, git and Python 3.11.
.venv/.stamp: setup.cfg pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check -e '.[dev,legacy]'
	touch $@
venv: .venv/.stamp
.PHONY: venv
