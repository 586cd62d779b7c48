"""The commands of the documentation."""

import re
import shlex


def shell_lines(text):
    """Commands of the bash blocks, with continued lines joined and comments dropped."""
    for block in re.findall(r'```bash\n(.*?)```', text, re.DOTALL):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words
