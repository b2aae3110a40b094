#pragma once
// What the HTML page knows of a run, as one compact JSON text.
//
// title, failed, complete, summary, replay (what a token is appended to), context[][key, value]; kernels[]{name, contract, in_short,
// verdict, failures, cases, util, where, replay}; matrix{properties[], cells[property][kernel]: null or [verdict, util, cases, regime,
// replay]}; names that columns refer to by index: kernel_words[], property_words[] (as in replay tokens), regimes[], tensors[], verdicts[];
// recipes[][recipe token, T, decay, key correlation]; cases{kernel[], property[], regime[], recipe[], tensor[], position[], util[],
// verdict[]}: cases that measured an error at a place, and failures that have a recipe; spread[] [kernel, tensor, cases, least, 5 %, 25 %,
// 50 %, 75 %, 95 %, most] over all of them; measured, drawn: how many there are and how many stand in `cases`; failures[]{kernel, property,
// regime, verdict, util, place, detail, stage, replay, seen, cases}; modules[]{name, laws[][law, cases, passed, failures, util],
// regimes[][regime, cases, passed, failures, util], figures[]{regime, figures[][name, value]}, heading, sentence}; not_supported[]{kernel,
// reason, cases}. util is null, in `cases` NaN, where the kernel crashed or gave no answer in time. Numbers that JSON cannot hold:
// json_numbers.hpp.

#include "results.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <span>
#include <string>

namespace kdacheck {

/// `results` and every case that they were gathered from, and `neighbours`, whose keys stand on the page as they are: series
/// (series.hpp), limits[] of power.json, bench (bench.hpp); null where a thing was not measured. Above `most_drawn` measured cases, only
/// the worst of every kernel x property x regime stand in `cases`. The text holds no '<': it may stand in a script element.
std::string to_page_json(const Results& results, std::span<const CaseResult> cases,
                         const nlohmann::ordered_json& neighbours = nlohmann::ordered_json::object(), std::size_t most_drawn = 40000);

} // namespace kdacheck
