"""explain and list: the pages of the findings."""

from doctor import report
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.verbs.patient import Args
from doctor.words import pages


def explain(args: Args, screen: Screen) -> int:
    both = pages(screen.lang)
    if args.id not in both:
        raise BadUsage(f"There is no finding {args.id}; `comfy-doctor list` names them all")
    page = both[args.id]
    screen.lines(report.page_lines(args.id, page, screen.lang))
    told = vars(page) | {"title": page.short or page.title}
    screen.object({"schema": "comfy-doctor.explain/1", "id": args.id, **told})
    return 0


def list_all(args: Args, screen: Screen) -> int:
    both = pages(screen.lang)
    screen.rows((id, page.short or page.title) for id, page in both.items())
    found = [{"id": id, "title": page.short or page.title} for id, page in both.items()]
    screen.object({"schema": "comfy-doctor.list/1", "findings": found})
    return 0
