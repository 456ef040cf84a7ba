"""Generating flows: draws what a profile leaves open and derives the other columns from it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from nodes.data.deal import proportional
from nodes.data.netflow import NETFLOW_V2
from nodes.data.profiles import CLASSES, PROFILES, FlowClass, Profile, Weighted
from nodes.runtime.arrays import F64, I64

Columns = dict[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]

_SIZE_BINS = np.array([128.0, 256.0, 512.0, 1024.0])
_SIZE_COLUMNS = (
    "NUM_PKTS_UP_TO_128_BYTES",
    "NUM_PKTS_128_TO_256_BYTES",
    "NUM_PKTS_256_TO_512_BYTES",
    "NUM_PKTS_512_TO_1024_BYTES",
    "NUM_PKTS_1024_TO_1514_BYTES",
)
_MTU = 1500
_WRAP = 4_294_967.0
_REAL = ("L7_PROTO", "SRC_TO_DST_SECOND_BYTES", "DST_TO_SRC_SECOND_BYTES")


def flows(rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, npt.NDArray[np.object_]]:
    """Generate `rows` flows in random order: the 39 NetFlow v2 features, and the class names [rows].

    Every class gets its share of the rows, and at least one row. Raises ValueError for fewer rows than classes.
    """
    counts = _at_least_one(rows, CLASSES)
    parts = []
    for (_, kind), count in zip(CLASSES.items(), counts, strict=True):
        picked = rng.choice(len(kind.profiles), size=count, p=_weights(kind.profiles))
        for place, name in enumerate(kind.profiles):
            members = np.flatnonzero(picked == place)
            parts.append(pd.DataFrame(draw(PROFILES[name], len(members), rng)))
    # Within a class rows are ordered by profile; the one shuffle below mixes both.
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    classes = np.repeat(np.array(list(CLASSES), object), counts)
    order = rng.permutation(rows)
    names = [feature.name for feature in NETFLOW_V2]
    return frame[names].take(order).reset_index(drop=True), classes[order]


def draw(profile: Profile, rows: int, rng: np.random.Generator) -> Columns:
    """Draw `rows` flows of one profile."""
    in_packets = np.maximum(1, np.rint(_lognormal(profile.packets, rows, rng)))
    answered = rng.random(rows) < profile.answered
    out_packets = np.maximum(1, np.rint(in_packets * _lognormal(profile.ratio, rows, rng))) * answered
    header = 40.0 if profile.protocol == 6 else 28.0
    in_size = np.clip(_lognormal(profile.in_size, rows, rng), header, _MTU)
    out_size = np.clip(_lognormal(profile.out_size, rows, rng), header, _MTU) * answered
    columns = _volumes(in_packets, out_packets, in_size, out_size, rng)
    columns |= _sizes(in_packets, out_packets, in_size, out_size, header, rng)
    columns |= _times(columns, _lognormal(profile.duration, rows, rng), profile.wraps, rng)
    columns |= _retransmissions(columns, profile.retransmits, rng)
    columns |= _headers(profile, answered, rng)
    columns |= _applications(profile, rows, rng)
    return {name: values if name in _REAL else np.rint(values).astype(np.int64) for name, values in columns.items()}


def _volumes(in_packets: F64, out_packets: F64, in_size: F64, out_size: F64, rng: np.random.Generator) -> Columns:
    """Packets and bytes each way."""
    noise = rng.integers(0, 8, (2, len(in_packets)))
    return {
        "IN_PKTS": in_packets,
        "OUT_PKTS": out_packets,
        "IN_BYTES": np.rint(in_packets * in_size) + noise[0],
        "OUT_BYTES": np.rint(out_packets * out_size) + noise[1] * (out_packets > 0),
    }


def _sizes(
    in_packets: F64, out_packets: F64, in_size: F64, out_size: F64, header: float, rng: np.random.Generator
) -> Columns:
    """Extremes and histogram of packet sizes, around the mean size of the larger direction."""
    packets = in_packets + out_packets
    mean = np.maximum(in_size, out_size)
    spread = np.where(packets > 2, np.exp(np.abs(rng.normal(1.0, 0.25, len(packets)))), 1.0)
    longest = np.clip(mean * spread, header, _MTU)
    shortest = np.where(packets > 2, header, np.minimum(in_size, np.where(out_size > 0, out_size, in_size)))
    below = 1.0 / (1.0 + np.exp(-3.0 * np.log(_SIZE_BINS / ((in_size + mean) / 2)[:, None])))
    edges = np.hstack([np.zeros((len(packets), 1)), below, np.ones((len(packets), 1))])
    counts = rng.multinomial(packets.astype(np.int64), np.diff(edges, axis=1))
    return {
        "LONGEST_FLOW_PKT": longest,
        "MAX_IP_PKT_LEN": longest,
        "SHORTEST_FLOW_PKT": shortest,
        "MIN_IP_PKT_LEN": np.where(out_packets > 0, shortest, 0.0),
        **{name: counts[:, place] for place, name in enumerate(_SIZE_COLUMNS)},
    }


def _times(flow: Mapping[str, F64 | I64], milliseconds: F64, wraps: float, rng: np.random.Generator) -> Columns:
    """Durations, and the rates that follow from bytes and durations."""
    packets = flow["IN_PKTS"] + flow["OUT_PKTS"]
    duration = np.where(packets > 1, np.minimum(np.rint(milliseconds), _WRAP), 0.0)
    parts = rng.uniform(0.6, 1.0, (2, len(duration)))
    seconds = np.maximum(duration, 1.0) / 1000.0
    rates = {
        name: np.rint(8 * flow[volume] / seconds)
        for name, volume in (("SRC_TO_DST_AVG_THROUGHPUT", "IN_BYTES"), ("DST_TO_SRC_AVG_THROUGHPUT", "OUT_BYTES"))
    }
    wrapped = (duration > 0) & (rng.random(len(duration)) < wraps)
    return {
        "FLOW_DURATION_MILLISECONDS": np.where(wrapped, _WRAP - duration, duration),
        "DURATION_IN": duration * parts[0] * (flow["IN_PKTS"] > 1),
        "DURATION_OUT": duration * parts[1] * (flow["OUT_PKTS"] > 1),
        **rates,
        "SRC_TO_DST_SECOND_BYTES": flow["IN_BYTES"] / np.maximum(seconds, 1.0),
        "DST_TO_SRC_SECOND_BYTES": flow["OUT_BYTES"] / np.maximum(seconds, 1.0),
    }


def _retransmissions(flow: Mapping[str, F64 | I64], share: float, rng: np.random.Generator) -> Columns:
    columns: Columns = {}
    for way in ("IN", "OUT"):
        packets = flow[f"{way}_PKTS"].astype(np.int64)
        again = rng.binomial(packets, share)
        columns[f"RETRANSMITTED_{way}_PKTS"] = again
        columns[f"RETRANSMITTED_{way}_BYTES"] = again * (flow[f"{way}_BYTES"] / np.maximum(packets, 1))
    return columns


def _headers(profile: Profile, answered: npt.NDArray[np.bool_], rng: np.random.Generator) -> Columns:
    """Protocol, TTLs, TCP flags and windows."""
    rows = len(answered)
    client, server = np.array([pair[:2] for pair in profile.flags]).T
    picked = rng.choice(len(profile.flags), size=rows, p=_normal([pair[2] for pair in profile.flags]))
    ttl = _pick(profile.ttls, rows, rng) - rng.integers(profile.hops[0], profile.hops[1] + 1, rows)
    ttl = np.maximum(ttl, 0)
    server_flags = server[picked] * answered
    return {
        "PROTOCOL": np.full(rows, profile.protocol),
        "CLIENT_TCP_FLAGS": client[picked],
        "SERVER_TCP_FLAGS": server_flags,
        "TCP_FLAGS": client[picked] | server_flags,
        "MIN_TTL": ttl,
        "MAX_TTL": ttl,
        "TCP_WIN_MAX_IN": _pick(profile.windows_in, rows, rng),
        "TCP_WIN_MAX_OUT": _pick(profile.windows_out, rows, rng) * answered,
    }


def _applications(profile: Profile, rows: int, rng: np.random.Generator) -> Columns:
    """Layer 7, ICMP, DNS and FTP fields."""
    ping = 8.0 if profile.protocol == 1 else 0.0
    dns = float(profile.dns)
    return {
        "L7_PROTO": _pick(profile.l7, rows, rng),
        "ICMP_TYPE": np.full(rows, ping * 256),
        "ICMP_IPV4_TYPE": np.full(rows, ping),
        "DNS_QUERY_ID": dns * rng.integers(0, 65_536, rows),
        "DNS_QUERY_TYPE": dns * _pick(((1, 0.75), (28, 0.2), (12, 0.05)), rows, rng),
        "DNS_TTL_ANSWER": dns * _pick(((0, 0.2), (30, 0.2), (60, 0.4), (300, 0.2)), rows, rng),
        "FTP_COMMAND_RET_CODE": np.zeros(rows),
    }


def _lognormal(pair: tuple[float, float], rows: int, rng: np.random.Generator) -> F64:
    return rng.lognormal(np.log(pair[0]), pair[1], rows)


def _pick(choices: Weighted, rows: int, rng: np.random.Generator) -> F64:
    values, weights = np.array(choices, np.float64).T
    picked: F64 = values[rng.choice(len(values), size=rows, p=weights / weights.sum())]
    return picked


def _normal(weights: list[float]) -> F64:
    weights_K = np.array(weights, np.float64)
    shares_K: F64 = weights_K / weights_K.sum()
    return shares_K


def _weights(profiles: Mapping[str, float]) -> F64:
    return _normal(list(profiles.values()))


def _at_least_one(rows: int, classes: Mapping[str, FlowClass]) -> I64:
    if rows < len(classes):
        raise ValueError(f"{rows} rows cannot hold {len(classes)} classes")
    shares = np.array([kind.share for kind in classes.values()])
    return 1 + proportional(rows - len(classes), shares)
