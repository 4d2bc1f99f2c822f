"""A FastAPI application over SQLAlchemy, which has answered some requests.

Asked without a server, as servers ask. Importing it needs both packages.
"""

from __future__ import annotations

import asyncio
import json

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list[Order]] = relationship(back_populates="user")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship(back_populates="orders")


class Item(BaseModel):
    text: str
    tags: list[str] = []


engine = create_engine(
    "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
)
make_session = sessionmaker(engine)
app = FastAPI()


async def session():
    with make_session() as one:
        yield one


@app.post("/users/{name}/orders")
async def order(name: str, item: Item, db: Session = Depends(session)) -> dict:
    user = db.scalar(select(User).where(User.name == name))
    if user is None:
        user = User(name=name)
        db.add(user)
    user.orders.append(Order(text=item.text))
    db.commit()
    return {"user": user.id, "orders": len(user.orders)}


@app.get("/users/{name}")
async def show(name: str, db: Session = Depends(session)) -> list[Item]:
    user = db.scalars(select(User).where(User.name == name)).one()
    return [Item(text=one.text, tags=[name]) for one in user.orders]


async def ask(method: str, path: str, body: object = None) -> object:
    """A request, and what was answered."""
    told = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    ]
    answers: list[dict] = []

    async def receive() -> dict:
        return told.pop() if told else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    assert answers[0]["status"] == 200, answers
    return json.loads(b"".join(one.get("body", b"") for one in answers[1:]))


async def at_work() -> None:
    for number in range(60):
        path = f"/users/user {number % 7}"
        await ask("POST", f"{path}/orders", {"text": f"order {number}"})
        assert await ask("GET", path)
    await ask("GET", "/openapi.json")


Base.metadata.create_all(engine)
# One that is not closed, with objects that it has loaded.
open_session = make_session()
asyncio.run(at_work())
loaded = open_session.scalars(select(User)).all()
assert sum(len(user.orders) for user in loaded) == 60
