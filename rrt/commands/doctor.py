"""What is installed here, what works, and what is missing for the rest.

rrt doctor
rrt doctor --json
"""

import json

from rrt.command_line.parser import CommandParser
from rrt.installation import as_text, examine


def main():
    """Print versions, devices, shipped models, and for everything one can do here whether it works."""
    parser = CommandParser(__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    args = parser.parse_args()
    found = examine()
    print(json.dumps(found, indent=1) if args.json else as_text(found))
