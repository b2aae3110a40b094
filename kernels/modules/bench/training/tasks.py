"""Palindrome, associative recall (MQAR) and stacks, drawn on a device in bulk: the tasks of ../../tests/synthetic_tasks.hpp at the sizes of
../synthetic_tasks.cpp. Source: Kimi Linear technical report (arXiv 2510.26692), section 5.1.

A draw is tokens [N,T] and targets [N,A] (-1: nothing is asked) for the positions `asked`, a slice of T that has A of them.
"""
from dataclasses import dataclass
from typing import Callable

import torch


@dataclass(frozen=True)
class Task:
    vocabulary: int
    T: int
    asked: slice
    draw: Callable  # (generator, N) -> tokens [N,T], targets [N,A]


def drawn(generator, limit, *shape):
    return torch.randint(limit, shape, generator=generator, device=generator.device)


def some_of(generator, N, count, limit):
    """`count` different numbers below `limit` in random order, N times."""
    return torch.rand(N, limit, generator=generator, device=generator.device).argsort(1)[:, :count]


def associative_recall(T, pairs, symbols):
    """Keys, each with its value, blanks, and the keys again in another order: each is to be followed by its value. Keys and values are
    two alphabets of that many symbols; 0 is the blank."""

    def draw(generator, N):
        keys = 1 + some_of(generator, N, pairs, symbols)
        values = 1 + symbols + drawn(generator, symbols, N, pairs)
        order = some_of(generator, N, pairs, pairs)
        blanks = torch.zeros(N, T - 3 * pairs, dtype=torch.int64, device=generator.device)
        told = torch.stack((keys, values), 2).flatten(1)
        return torch.cat((told, blanks, keys.gather(1, order)), 1), values.gather(1, order)

    return Task(1 + 2 * symbols, T, slice(T - pairs, T), draw)


def palindrome(T, symbols=64):
    """T / 2 symbols, the mark 0 and the symbols backwards."""
    length = T // 2

    def draw(generator, N):
        told = 1 + drawn(generator, symbols, N, length)
        back, mark = told.flip(1), torch.zeros(N, 1, dtype=torch.int64, device=generator.device)
        return torch.cat((told, mark, back[:, :-1]), 1), back

    return Task(1 + symbols, 2 * length, slice(length, 2 * length), draw)


def stacks(T, count=64, symbols=64):
    """T / 2 commands of two tokens, each to one of `count` stacks: push and the symbol, or pop, which is to be followed by what comes off.
    An empty stack is pushed to, another is popped with probability 1/2: its depth is the distance from 0 of a walk of independent steps
    up and down, and what comes off is what went to this depth last."""
    commands = T // 2

    def draw(generator, N):
        device = generator.device
        stack = drawn(generator, count, N, commands)
        place, order = stack.sort(dim=1, stable=True)  # a stack's commands side by side, in time
        steps = 2 * drawn(generator, 2, N, commands) - 1
        walk = steps.cumsum(1)
        starts = torch.ones_like(place, dtype=torch.bool)
        starts[:, 1:] = place[:, 1:] != place[:, :-1]
        index = torch.arange(commands, device=device).expand(N, -1)
        first = torch.where(starts, index, 0).cummax(1).values
        before = walk - steps
        base = before.gather(1, first)
        depth_before, depth = (before - base).abs(), (walk - base).abs()
        push = depth > depth_before
        level = torch.where(push, depth, depth_before)
        by_level = (place * (commands + 1) + level).argsort(dim=1, stable=True)  # push, pop, push, pop of each stack and depth
        symbol = 2 * count + drawn(generator, symbols, N, commands)
        sorted_symbol, sorted_push = symbol.gather(1, by_level), push.gather(1, by_level)
        previous = torch.cat((sorted_symbol[:, :1], sorted_symbol[:, :-1]), 1)
        there = torch.where(sorted_push, sorted_symbol, previous)
        back = torch.empty_like(symbol).scatter_(1, order.gather(1, by_level), there)
        pushed = torch.empty_like(push).scatter_(1, order, push)
        tokens = torch.stack((torch.where(pushed, stack, count + stack), back), 2).flatten(1)
        return tokens, torch.where(pushed, -1, back)

    return Task(2 * count + symbols, 2 * commands, slice(0, 2 * commands, 2), draw)


def task_named(name, T, longest=None):
    """MQAR has T / 4 pairs, and twice as many keys and values to draw from. `longest`: with the alphabet of so many tokens."""
    return {"mqar": lambda: associative_recall(T, T // 4, (longest or T) // 2), "palindrome": lambda: palindrome(T), "stack": lambda: stacks(T)}[name]()
