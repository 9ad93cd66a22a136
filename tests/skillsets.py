"""Skill folders for tests, and the catalogue opened over them."""

from contextlib import asynccontextmanager

from agent_kernel import skills
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants, Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.scheduler import Scheduler
from agent_kernel.skills import Skills


def write(folder, name=None, description="Counts jars of marmalade.", body="Run scripts/tally.py.", **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SKILL.md").write_text(
        f"---\nname: {name or folder.name}\ndescription: {description}\n---\n\n{body}\n", encoding="utf8"
    )
    for name_of, text in files.items():
        path = folder / name_of.replace("__", "/").replace("_py", ".py").replace("_sh", ".sh").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def sharing(*folders):
    return Grants(folders=tuple(map(Folder, folders)))


@asynccontextmanager
async def opened(tmp_path, policy=None, **limits):
    scheduler = Scheduler(slots=4, queue_max=16)
    ports = Ports.real()
    store = await Store.open(
        tmp_path / "state", ports=ports, limits=Limits(), migrations=[skills.MIGRATIONS], spawn=scheduler.spawn
    )
    try:
        yield Skills(store=store, ports=ports, limits=Limits(**limits), policy=policy or Policy())
    finally:
        await store.close()
        await scheduler.close()
