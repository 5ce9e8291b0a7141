/* Element losses, weights and masks become one number, in the four ways of Keras. No library, no network.
   First the arithmetic: `lossviz/regimes.py` once more, word for word; tests/test_playground.py compares the two in a
   browser. Then the page. */
"use strict";
(() => {
// --- arrays: {shape, data}, the last axis fastest

const nd = (shape, data) => ({ shape, data });
const count = (shape) => shape.reduce((a, b) => a * b, 1);
const each = (n, f) => Array.from({ length: n }, (_, k) => f(k));
const order = (list) => list.map((_, k) => k);
const fill = (shape, value) => nd(shape, new Array(count(shape)).fill(value));
const same = (one, other) => String(one) === String(other);
const scalar = (value) => nd([], [value]);

/** The shape of two arrays together, or null. */
function broadcast(a, b) {
	const out = [];
	for (let k = 1; k <= Math.max(a.length, b.length); k++) {
		const m = k <= a.length ? a[a.length - k] : 1, n = k <= b.length ? b[b.length - k] : 1;
		if (m !== n && m !== 1 && n !== 1) return null;
		out.unshift(m === 1 ? n : m);
	}
	return out;
}

/** For each place of `shape` the place in `inner`, as NumPy broadcasts. */
function lookup(shape, inner) {
	const offset = shape.length - inner.length;
	return each(count(shape), (i) => {
		let place = 0, stride = 1;
		for (let k = shape.length - 1; k >= 0; k--) {
			const size = k < offset ? 1 : inner[k - offset];
			if (size !== 1) place += (i % shape[k]) * stride;
			stride *= size;
			i = Math.floor(i / shape[k]);
		}
		return place;
	});
}

const expand = (a, shape) => nd(shape, lookup(shape, a.shape).map((i) => a.data[i]));
const map = (a, f) => nd(a.shape, a.data.map(f));

function combine(a, b, f) {
	const shape = broadcast(a.shape, b.shape), y = expand(b, shape).data;
	return map(expand(a, shape), (x, i) => f(x, y[i]));
}
const times = (a, b) => combine(a, b, (x, y) => x * y);

/** Sum back to `shape` what broadcasting has repeated. */
function unbroadcast(a, shape) {
	const out = fill(shape, 0);
	lookup(a.shape, shape).forEach((place, i) => { out.data[place] += a.data[i]; });
	return out;
}

function sumOver(a, axes) {
	const kept = unbroadcast(a, a.shape.map((n, k) => (axes.includes(k) ? 1 : n)));
	return nd(a.shape.filter((_, k) => !axes.includes(k)), kept.data);
}

const total = (values) => values.reduce((a, b) => a + b, 0);
const mean = (a) => (a.data.length ? total(a.data) / a.data.length : NaN);
const reshape = (a, shape) => nd(shape, a.data);

/** The samples from `start` to `end`. */
function rows(a, start, end) {
	const size = count(a.shape.slice(1));
	return nd([end - start, ...a.shape.slice(1)], a.data.slice(start * size, end * size));
}

function close(a, b) {
	const shape = broadcast(a.shape, b.shape);
	if (!shape) return false;
	const x = expand(a, shape).data, y = expand(b, shape).data;
	return x.every((v, i) => Object.is(v, y[i]) || v === y[i] || Math.abs(v - y[i]) <= 1e-9 * Math.abs(y[i]));
}

// --- words

const shapeText = (shape) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;

/** Integers by thousands, others with `digits` significant digits (%g). */
function plain(value, digits = 5) {
	if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf");
	if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
	const sign = value < 0 ? "-" : "";
	let [mantissa, exponent] = Math.abs(value).toExponential(digits - 1).split("e");
	// An exact half goes to the even digit, as in Python.
	const exact = Math.abs(value).toExponential(100).replace(".", "").split("e")[0];
	if (/^50*$/.test(exact.slice(digits)) && exact[digits - 1] % 2 === 0) {
		[mantissa, exponent] = [exact.slice(0, digits), Math.abs(value).toExponential(100).split("e")[1]];
	}
	const d = mantissa.replace(".", ""), e = Number(exponent), strip = (text) => text.replace(/\.?0*$/, "");
	if (e < -4 || e >= digits) {
		return `${sign}${strip(`${d[0]}.${d.slice(1)}`)}e${e < 0 ? "-" : "+"}${String(Math.abs(e)).padStart(2, "0")}`;
	}
	return sign + (e < 0 ? strip(`0.${"0".repeat(-e - 1)}${d}`) : strip(`${d.slice(0, e + 1)}.${d.slice(e + 1)}`));
}

function rangeText(weight) {
	const low = Math.min(...weight.data), high = Math.max(...weight.data);
	const zeros = weight.data.filter((w) => w === 0).length;
	const text = low === high ? plain(low) : `${plain(low)} … ${plain(high)}`;
	return text + (zeros && low !== high ? `, ${zeros} of ${weight.data.length} are 0` : "");
}
const keptText = (mask) => `${plain(total(mask.data))} of ${plain(mask.data.length)} are unmasked`;

// --- the four regimes: see the docstrings of lossviz/regimes.py

const REGIMES = ["keras-2.2", "keras-2.3", "tf-keras-2.10", "keras-3"];
const TITLES = {
	"keras-2.2": "Keras up to 2.2.5", "keras-2.3": "Keras 2.3", "tf-keras-2.10": "tf.keras since 2.10", "keras-3": "Keras 3",
};
const REDUCTIONS = {
	"keras-2.2": ["sum_over_batch_size"],
	"keras-2.3": ["sum_over_batch_size", "sum", "none"],
	"tf-keras-2.10": ["sum_over_batch_size", "auto", "sum", "none"],
	"keras-3": ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", null],
};
const STAGES = ["mask", "mask divisor", "weights", "weights divisor", "mean"];
const python = (value) => (value === null ? "None" : `'${value}'`);

class Refusal extends Error {}

/** One reduction while it runs; `places` says which axis of the score array a dimension is, or null. */
class Call {
	constructor(rules, reduction, score, weight, mask, axes) {
		Object.assign(this, { rules, reduction, score, weight, mask, axes });
		this.values = score;
		this.places = order(score.shape);
		this.back = [];
		this.steps = [];
		this.divisors = {};
		this.effects = {};
		const where = axes.length ? ` (${axes.join(", ")})` : "";
		this.step("element loss", `element loss${where}: ${shapeText(score.shape)}`, score.shape);
		this.weightsName = weight ? "sample_weight" : "mask";
		this.weightsShape = (weight || mask || score).shape;
	}

	get shape() {
		return this.values.shape;
	}

	changeAxis(change) {
		if (!change) return;
		const shape = this.shape;
		this.values = lastAxis(this.values, change);
		this.places = change === "append" ? [...this.places, null] : this.places.slice(0, -1);
		this.back.push((g) => reshape(g, shape));
	}

	weigh(factors, rule, maskDivisor = false, safe = false) {
		const shape = shapeOf(factors);
		if (!broadcast(shape, this.shape)) {
			const as = same(shape, this.weightsShape) ? "" : `as ${shapeText(shape)} `;
			throw this.refuse(this.weightsName, this.weightsShape, `${rule}then they are multiplied ${as}with last axes aligned`);
		}
		for (const name of ["mask", "weights"]) {
			if (!factors[name]) continue;
			this.multiply(name, factors[name]);
			if (name === "mask" && maskDivisor) {
				this.divide("mask", mean(this.mask), `the mean of the mask: ${keptText(this.mask)}`, safe);
			}
		}
	}

	multiply(name, factor) {
		const shape = this.shape;
		this.values = times(this.values, factor);
		const now = this.shape, added = now.length - shape.length;
		const before = [...new Array(added).fill([null, 1]), ...shape.map((n, k) => [this.places[k], n])];
		this.places = before.map(([place, n], k) => (n === now[k] ? place : null));
		this.back.push((g) => unbroadcast(times(g, factor), shape));
		const offset = now.length - factor.shape.length;
		const along = factor.shape.flatMap((n, k) => (n === 1 ? [] : [this.name(k + offset)]));
		const given = name === "mask" ? this.mask : this.weight;
		let text = `× ${name === "mask" ? "mask" : "sample weights"} ${shapeText(given.shape)}`;
		if (!same(factor.shape, given.shape)) text += ` as ${shapeText(factor.shape)}`;
		text += along.length ? ` along ${along.join(", ")}: ` : ": ";
		text += name === "mask" ? keptText(given) : rangeText(given);
		if (!same(now, shape)) text += `; broadcast ${shapeText(shape)} → ${shapeText(now)}`;
		this.effects[name] = [this.effect(factor), text];
		this.step("multiply", text, shape);
	}

	divide(name, divisor, text, safe = false) {
		let factor = 1 / divisor;
		if (safe && divisor === 0) {
			text += "; 0 / 0 counts as 0";
			factor = 1;
		} else {
			this.values = map(this.values, (x) => x / divisor);
		}
		this.back.push((g) => map(g, (x) => x * factor));
		this.divisors[name] = divisor;
		text = `÷ ${plain(divisor)}, ${text}`;
		this.effects[`${name} divisor`] = [scalar(factor), text];
		this.step("divide", text, this.shape, divisor);
	}

	mean(first = 0, safe = false) {
		this.collapse(first, "mean", count(this.shape.slice(first)), safe);
	}

	finish(safe, weightSum = null) {
		if (this.reduction === "sum") this.collapse(0, "sum", null, safe);
		else if (weightSum !== null) this.collapse(0, "weighted mean", weightSum, safe);
		else if (this.reduction !== "none" && this.reduction !== null) this.mean(0, safe);
	}

	collapse(first, op, divisor, safe) {
		const shape = this.shape, gone = order(shape).slice(first);
		const zero = safe && divisor === 0, factor = zero ? 0 : 1 / (divisor === null ? 1 : divisor);
		this.values = map(sumOver(this.values, gone), (x) => (zero ? 0 : divisor === null ? x : x / divisor));
		const spread = [...this.shape, ...gone.map(() => 1)];
		this.back.push((g) => expand(reshape(map(g, (x) => x * factor), spread), shape));
		const names = gone.filter((k) => this.places[k] !== null).map((k) => this.axes[this.places[k]]);
		const over = names.length === gone.length ? names.join(", ") : `${gone.length} ax${gone.length > 1 ? "e" : "i"}s`;
		let text = `${op} over ${over}: ${shapeText(shape)} → ${shapeText(this.shape)}`;
		if (divisor !== null) {
			text += `, ÷ ${plain(divisor)}${op === "weighted mean" ? ", the sum of the weights" : ""}`;
			text += zero ? "; x / 0 counts as 0" : "";
			this.divisors[`${op} over ${over}`] = divisor;
			const added = count(gone.filter((k) => this.places[k] === null).map((k) => shape[k]));
			const before = this.effects.mean ? this.effects.mean[0] : scalar(1);
			this.effects.mean = [map(before, (x) => x * factor * added), text];
		}
		this.places = this.places.slice(0, first);
		if (gone.length || divisor !== 1) this.step(op, text, shape, divisor);
	}

	result(lossWeight) {
		if (lossWeight !== null) {
			const shape = this.shape;
			this.values = map(this.values, (x) => x * lossWeight);
			this.back.push((g) => map(g, (x) => x * lossWeight));
			this.step("multiply", `× ${plain(lossWeight)} (loss weight)`, shape);
		}
		const gradient = this.back.reduceRight((g, step) => step(g), fill(this.shape, 1));
		return {
			regime: this.rules, value: this.shape.length ? this.values : this.values.data[0], axes: this.axes,
			steps: this.steps, divisors: this.divisors, divisor: Object.values(this.divisors).reduce((a, b) => a * b, 1),
			gradient, contributions: times(this.score, gradient), effects: this.effects,
		};
	}

	refuse(argument, shape, rule, other = "the score array", fits = null) {
		const target = (other === "the mask" ? this.mask : this.score).shape;
		const shapes = new Set((fits || fitting(this.rules, target)).map(shapeText));
		return new Refusal(
			`${argument} of shape ${shapeText(shape)} does not fit ${other} of shape ${shapeText(target)} in ${this.rules} ` +
			`(${TITLES[this.rules]}): ${rule}. Give it the shape ${[...shapes].join(" or ")}.`
		);
	}

	/** What `factor` does to each element; the mean over dimensions that broadcasting has added. */
	effect(factor) {
		const wide = expand(factor, this.shape);
		const added = this.places.flatMap((place, k) => (place === null ? [k] : []));
		const n = count(added.map((k) => wide.shape[k]));
		const own = map(sumOver(wide, added), (x) => x / n);
		return expand(reshape(own, this.score.shape.map((m, k) => (this.places.includes(k) ? m : 1))), this.score.shape);
	}

	name(k) {
		return this.places[k] === null ? `axis ${k}` : this.axes[this.places[k]];
	}

	step(op, text, before, divisor = null) {
		this.steps.push({
			op, text, inputShape: before, outputShape: this.shape, divisor, values: this.values, places: this.places,
		});
	}
}

function fitting(rules, target) {
	if (!target.length) return [[]];
	const sample = target.slice(0, 1);
	return [rules === "keras-2.2" ? sample : [...sample, ...target.slice(1).map(() => 1)], target];
}

const lastAxis = (a, change) => {
	if (!change) return a;
	return reshape(a, change === "append" ? [...a.shape, 1] : a.shape.slice(0, -1));
};
const apply = (change, factors) =>
	Object.fromEntries(Object.entries(factors).map(([name, x]) => [name, lastAxis(x, change)]));
const shapeOf = (factors) => Object.values(factors).map((x) => x.shape).reduce(broadcast, []);

function fitted(call, name, shape, target, other = "the score array") {
	if (!shape.length || Math.abs(shape.length - target.length) !== 1) return "";
	if (shape.length < target.length) return "append";
	if (shape.at(-1) === 1) return "drop";
	const rule = `it has one axis more than ${other}, and only a last axis of size 1 is dropped`;
	throw call.refuse(name, name === call.weightsName ? call.weightsShape : shape, rule, other);
}

function sameRank(one, two) {
	if (one.length === two.length + 1 && one.at(-1) === 1) return two.length === 1 ? ["", "append"] : ["drop", ""];
	if (two.length === one.length + 1 && two.at(-1) === 1) return one.length === 1 ? ["append", ""] : ["", "drop"];
	return ["", ""];
}

/** Weights and mask, brought to one rank by the rules after 2.2. */
function merge(call) {
	let { mask, weight } = call;
	if (!mask && !weight) return null;
	if (!mask) return { weights: weight };
	if (!weight) return { mask };
	let own;
	if (call.rules === "keras-3") {
		const [m, w] = sameRank(mask.shape, weight.shape);
		mask = lastAxis(mask, m);
		own = lastAxis(weight, w);
	} else if (call.rules === "keras-2.3" && !mask.shape.length && weight.shape.length === 1) {
		mask = reshape(mask, [1]);
		own = weight;
	} else {
		own = lastAxis(weight, fitted(call, "sample_weight", weight.shape, mask.shape, "the mask"));
	}
	if (!broadcast(own.shape, mask.shape)) {
		const as = same(own.shape, weight.shape) ? "" : `, as ${shapeText(own.shape)},`;
		const rule = `mask and weights${as} are multiplied first, with last axes aligned`;
		throw call.refuse("sample_weight", weight.shape, rule, "the mask");
	}
	const rank = Math.max(own.shape.length, mask.shape.length);
	const long = (x) => reshape(x, [...new Array(rank - x.shape.length).fill(1), ...x.shape]);
	return { weights: long(own), mask: long(mask) };
}

const RULES = {
	"keras-2.2"(call) {
		const { mask, weight } = call;
		if (mask) {
			if (!broadcast(mask.shape, call.shape)) {
				throw call.refuse("mask", mask.shape, "the two are multiplied as they are, last axes aligned", undefined, [call.score.shape]);
			}
			call.multiply("mask", mask);
			call.divide("mask", mean(mask), `the mean of the mask: ${keptText(mask)}`);
		}
		if (weight) {
			if (call.shape.length > weight.shape.length) call.mean(weight.shape.length);
			if (!broadcast(weight.shape, call.shape)) {
				const rule =
					`that is first averaged to the rank of the weights, which leaves ${shapeText(call.shape)}, ` +
					"then multiplied by them with last axes aligned";
				throw call.refuse("sample_weight", weight.shape, rule);
			}
			call.multiply("weights", weight);
			const present = map(weight, (w) => Number(Math.fround(w) !== 0));
			const words = `the share of weights that are not 0 (${total(present.data)} of ${present.data.length})`;
			call.divide("weights", mean(present), words);
		}
		call.mean();
	},

	"keras-2.3"(call) {
		let factors = merge(call);
		if (factors) {
			let shape = shapeOf(factors);
			if (!call.shape.length && shape.length === 1) call.changeAxis("append");
			else factors = apply(fitted(call, call.weightsName, shape, call.shape), factors);
			shape = shapeOf(factors);
			const target = call.shape;
			const rule = "missing axes are added at its end, then each must be as long as that of the other, or 1";
			if (!same(shape, target)) {
				if (shape.length > target.length || shape.some((n, k) => n !== target[k] && n !== 1)) {
					throw call.refuse(call.weightsName, call.weightsShape, rule);
				}
				const more = new Array(target.length - shape.length).fill(1);
				factors = Object.fromEntries(Object.entries(factors).map(([k, x]) => [k, reshape(x, [...x.shape, ...more])]));
			}
			call.weigh(factors, rule);
		}
		call.finish(false);
	},

	"tf-keras-2.10"(call) {
		let factors = merge(call);
		if (factors) {
			factors = apply(fitted(call, call.weightsName, shapeOf(factors), call.shape), factors);
			const rule = "a last axis of size 1 is dropped or appended where the ranks differ by one, ";
			call.weigh(factors, rule, ["auto", "sum_over_batch_size"].includes(call.reduction));
		}
		call.finish(true);
	},

	"keras-3"(call) {
		const factors = merge(call);
		let weightSum = null;
		if (factors) {
			weightSum = total(Object.values(factors).reduce(times).data);
			const [own, theirs] = sameRank(call.shape, shapeOf(factors));
			call.changeAxis(own);
			const divides = ["sum_over_batch_size", "mean"].includes(call.reduction);
			call.weigh(apply(theirs, factors), "no axis is appended to it, ", divides, true);
		}
		if (call.shape.length) call.finish(true, call.reduction === "mean_with_sample_weight" ? weightSum : null);
	},
};

/** `lossviz.regimes.reduce`, to a result or {refusal}. Arrays are {shape, data}, or null; `axes` names those of `score`. */
function reduce({ score, weight, mask, regime, reduction, lossWeight, axes }) {
	const known = REDUCTIONS[regime];
	if (!known.includes(reduction)) {
		const end = known.length === 1 ? ": its wrapper always takes the mean." : ".";
		const names = known.map(python).join(", ");
		return { refusal: `reduction=${python(reduction)} is unknown to ${regime} (${TITLES[regime]}), which has ${names}${end}` };
	}
	const call = new Call(regime, reduction, score, weight, mask, axes);
	try {
		RULES[regime](call);
		return call.result(lossWeight);
	} catch (error) {
		if (error instanceof Refusal) return { refusal: error.message };
		throw error;
	}
}

const differ = (x, y) => typeof x === "number" && typeof y === "number" && !close(scalar(x), scalar(y));

/** The first stage at which an element fares otherwise in `one` than in `other`. */
function firstDifference(one, other) {
	const nothing = [scalar(1), ""];
	for (const stage of STAGES) {
		const [mine, text] = one.effects[stage] || nothing, [theirs, otherText] = other.effects[stage] || nothing;
		if (!close(mine, theirs)) return text || `no ${otherText}`;
	}
	if (close(one.steps.at(-1).values, other.steps.at(-1).values)) return "";
	const shapes = one.steps.map((step) => step.outputShape), most = Math.max(...shapes.map(count));
	return `broadcasting to ${shapeText(shapes.find((shape) => count(shape) === most))}`;
}

// --- the state of the page: regime, reduction; of each output axes, class step, element losses, weights, mask

const AXES = [["batch", "b", 6], ["row", "r", 4], ["col", "c", 4], ["class", "k", 6]];
const MOST = 600, RANK = 5, OUTPUTS = 3;
const sizes = (output) => output.axes.map(([, n]) => n);
const names = (output) => output.axes.map(([name]) => name);
const hasClass = (output) => names(output).includes("class");
const batchOf = (output) => (names(output)[0] === "batch" ? output.axes[0][1] : null);

/** What the loss function returns. */
function scoreOf(output) {
	if (!hasClass(output)) return { score: output.e, axes: names(output), step: null, classes: 1 };
	const shape = output.e.shape, last = shape.length - 1, n = shape[last], averaged = output.fn === "mean";
	const score = map(sumOver(output.e, [last]), (x) => (averaged ? x / n : x));
	const text = `${output.fn} over class: ${shapeText(shape)} → ${shapeText(score.shape)}${averaged ? `, ÷ ${n}` : ""}`;
	const step = { op: output.fn, text, inputShape: shape, outputShape: score.shape, divisor: averaged ? n : null };
	return { score, axes: names(output).slice(0, -1), step, classes: averaged ? n : 1 };
}

/** What one regime makes of all outputs: {parts, value}, {parts, array} or {refusal}. */
function evaluate(state, regime) {
	const parts = state.outputs.map((output) => {
		const { score, axes } = scoreOf(output);
		const given = { score, weight: output.w, mask: output.m, lossWeight: output.lw, axes };
		return reduce({ ...given, regime, reduction: state.reduction });
	});
	const bad = parts.findIndex((part) => part.refusal), many = parts.length > 1;
	if (bad >= 0) return { parts, refusal: (many ? `output ${bad + 1}: ` : "") + parts[bad].refusal };
	const arrays = parts.filter((part) => typeof part.value !== "number");
	if (arrays.length) return { parts, array: arrays[0].value.shape };
	return { parts, value: total(parts.map((part) => part.value)) };
}

/** All four regimes, the newest that does not refuse, and where each first differs from it. */
function compare(state) {
	const found = Object.fromEntries(REGIMES.map((regime) => [regime, evaluate(state, regime)]));
	const reference = [...REGIMES].reverse().find((regime) => !found[regime].refusal) || "";
	for (const regime of REGIMES) {
		const one = found[regime], other = found[reference];
		one.difference = "";
		if (one.refusal || regime === reference) continue;
		for (let k = 0; k < one.parts.length && !one.difference; k++) {
			const words = firstDifference(one.parts[k], other.parts[k]);
			one.difference = words && one.parts.length > 1 ? `output ${k + 1}: ${words}` : words;
		}
	}
	return { found, reference };
}

/** The number of `evaluate` if the samples came in batches of `size`; null where they can not be split, or "refused". */
function epoch(state, regime, size) {
	const n = batchOf(state.outputs[0]);
	const split = (a) => a === null || a.shape[0] === n;
	if (!n || !state.outputs.every((o) => split(o.w) && split(o.m))) return null;
	let sum = 0;
	for (let start = 0; start < n; start += size) {
		const end = Math.min(n, start + size), cut = (a) => a && rows(a, start, end);
		const outputs = state.outputs.map((o) => ({
			...o, axes: [["batch", end - start], ...o.axes.slice(1)], e: cut(o.e), w: cut(o.w), m: cut(o.m),
		}));
		const { value, refusal } = evaluate({ ...state, outputs }, regime);
		if (value === undefined) return refusal ? "refused" : null;
		sum += (end - start) * value;
	}
	return sum / n;
}

/** The share of each element loss of output k in the number. */
function shares(state, result, k) {
	const output = state.outputs[k], { classes } = scoreOf(output);
	const gradient = map(result.parts[k].gradient, (x) => x / classes);
	return times(output.e, hasClass(output) ? reshape(gradient, [...gradient.shape, 1]) : gradient);
}

// --- the state as an address

const START = "#play:";
const word = (text) => `“${String(text).slice(0, 40)}”`;
const numberText = (x) => (Object.is(x, -0) ? "0" : String(x));

function write(state) {
	const fields = [["regime", state.regime]];
	if (state.reduction !== ALL_REDUCTIONS[0]) fields.push(["reduction", state.reduction]);
	state.outputs.forEach((o, k) => {
		const add = (key, value) => fields.push([k ? `${key}${k + 1}` : key, value]);
		add("axes", o.axes.map(([name, n]) => AXES.find((a) => a[0] === name)[1] + n).join("") || "0");
		if (hasClass(o)) add("fn", o.fn);
		add("e", o.e.data.map(numberText).join(","));
		if (o.w) add("w", `${o.w.shape.join("x")}:${o.w.data.map(numberText).join(",")}`);
		if (o.m) add("m", `${o.m.shape.join("x")}:${o.m.data.join("")}`);
		if (o.lw !== null) add("lw", numberText(o.lw));
	});
	return START + fields.map((pair) => pair.join("=")).join("&");
}

function readNumber(text) {
	const clean = text.trim().replace("−", "-").replace(",", "."), word = /^([+-]?)(?:(nan)|inf(inity)?)$/i.exec(clean);
	if (word) return word[2] ? NaN : Number(`${word[1]}Infinity`);
	return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(clean) ? Number(clean) : null;
}

function readShape(text) {
	const clean = text.replace(/[()\s]/g, "").replace(/,$/, "");
	const shape = clean === "" ? [] : clean.split(/[,x×]/).map((n) => (/^\d+$/.test(n) ? Number(n) : NaN));
	if (shape.some((n) => !(n >= 1 && n <= 6))) throw new Error(`${word(text)} is not a shape: write sizes from 1 to 6, such as 2, 1`);
	if (shape.length > RANK || count(shape) > MOST) throw new Error(`${word(text)} has more than ${RANK} axes or ${MOST} numbers`);
	return shape;
}

/** The state in an address, or an Error that says what is wrong with it. */
function read(hash) {
	let text = hash.slice(START.length);
	try { text = decodeURIComponent(text); } catch { throw new Error("it holds a broken % sign"); }
	const fields = new Map();
	for (const piece of text.split("&")) {
		const cut = piece.indexOf("=");
		if (cut < 1) throw new Error(`${word(piece)} is not of the form name=value`);
		fields.set(piece.slice(0, cut), piece.slice(cut + 1));
	}
	const take = (key, otherwise) => {
		const value = fields.get(key) ?? otherwise;
		fields.delete(key);
		return value;
	};
	const choose = (key, allowed, otherwise) => {
		const value = take(key, otherwise);
		if (!allowed.includes(value)) throw new Error(`${key}=${word(value)} is none of ${allowed.join(", ")}`);
		return value;
	};
	const numbers = (key, list, n) => {
		const data = list.split(",").map(readNumber);
		if (data.length !== n) throw new Error(`${key} holds ${data.length} numbers where ${n} are needed`);
		if (data.includes(null)) throw new Error(`${key} holds something that is not a number`);
		return data;
	};
	const state = { regime: choose("regime", REGIMES, "keras-3"), outputs: [] };
	state.reduction = choose("reduction", ALL_REDUCTIONS, "sum_over_batch_size");
	for (let k = 0; k < OUTPUTS && (k === 0 || fields.has(`axes${k + 1}`)); k++) {
		const key = (name) => (k ? `${name}${k + 1}` : name);
		const axes = readAxes(key("axes"), take(key("axes"), ""));
		const output = { axes, fn: choose(key("fn"), ["mean", "sum"], "mean"), w: null, m: null, lw: null };
		const shape = sizes(output);
		output.e = nd(shape, numbers(key("e"), take(key("e"), ""), count(shape)));
		for (const name of ["w", "m"]) {
			const value = take(key(name));
			if (value === undefined) continue;
			const cut = value.indexOf(":"), own = readShape(value.slice(0, cut < 0 ? undefined : cut));
			const list = cut < 0 ? "" : value.slice(cut + 1);
			if (name === "m" && !/^[01]*$/.test(list)) throw new Error(`${key(name)} holds something that is not 0 or 1`);
			output[name] = nd(own, numbers(key(name), name === "m" ? [...list].join(",") : list, count(own)));
		}
		const lw = take(key("lw"));
		if (lw !== undefined) [output.lw] = numbers(key("lw"), lw, 1);
		state.outputs.push(output);
	}
	if (fields.size) throw new Error(`${word([...fields.keys()][0])} means nothing here`);
	if (new Set(state.outputs.map(batchOf)).size > 1) throw new Error("the outputs have different batch sizes");
	return state;
}

function readAxes(key, text) {
	const match = /^(?:0|(?:b([1-6]))?(?:r([1-4]))?(?:c([1-4]))?(?:k([1-6]))?)$/.exec(text);
	if (!match || !text) throw new Error(`${key}=${word(text)} is not of the form b2r3c3k5: batch and class up to 6, row and column up to 4`);
	return AXES.flatMap(([name], k) => (match[k + 1] ? [[name, Number(match[k + 1])]] : []));
}

const ALL_REDUCTIONS = ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"];

/** The same in Python, for whoever wants to go on there. */
function pythonCode({ regime, reduction, outputs }) {
	const number = (x) => numberText(x).replace("NaN", "np.nan").replace("Infinity", "np.inf");
	const list = (a) => (a ? `np.array([${a.data.map(number).join(", ")}]).reshape(${a.shape.join(", ") || "()"})` : "None");
	const parts = outputs.map((o) => {
		const last = hasClass(o) ? `.${o.fn}(axis=-1)` : "", more = reduction === ALL_REDUCTIONS[0] ? "" : `, reduction="${reduction}"`;
		const weight = o.lw === null ? "" : `, loss_weight=${number(o.lw)}`;
		return `score = ${list(o.e)}${last}\nweight = ${list(o.w)}\nmask = ${list(o.m)}\n` +
			`loss = regimes.reduce(score, weight, mask, regime="${regime}"${more}${weight})\n`;
	});
	const sum = parts.map((part, k) => `${part}total ${k ? "+" : ""}= loss.value\n`);
	const show = parts.length > 1 ? `${sum.join("\n")}print(total)`
		: `${parts[0].replace("loss =", "print(regimes.compare(score, weight, mask))\nloss =")}print(loss)`;
	return `import numpy as np\n\nfrom lossviz import regimes\n\n${show}\n`;
}

// --- presets: an address, and one sentence on what to notice

const PRESETS = [
	["Five classes", "regime=keras-3&axes=b2r2c2k5&fn=mean&e=0.01,0.02,0.01,0,0.9,0.01,0,0.02,0.01,0,0.02,0.01,0,0.01,0,0.01,0.01,0.02,0,0.01,"
		+ "0.01,0.02,0,0.01,0,0,0.01,0.02,0.01,0.01,0.01,0.01,0,0.02,1.2,0.02,0,0.01,0.01,0",
		"A small number, and nearly all of it is one class: see who pays, at the end. The mean over class comes first, before every weight."],
	["Padding", "regime=keras-2.3&axes=b3r3&e=3,2,1,3,1,5,6,4,2&m=3x3:111110100",
		"One regime counts masked steps in its divisor: the more padding, the smaller its loss."],
	["As many samples as steps", "regime=keras-3&axes=b3r3&e=3,5,1,3,1,5,6,4,2&w=3:1,3,0",
		"One weight a sample, but Keras 3 lays them along the last axis: a column is weighted, not a row. The sizes fit, so nothing warns you."],
	["Zero weights", "regime=keras-2.2&axes=b3&e=0,4,4&w=3:0.1,0,0.1",
		"Up to Keras 2.2.5 a weight of zero also left the divisor. Nobody divides by the sum of the weights, unless you choose mean_with_sample_weight."],
	["Mask and weights", "regime=keras-2.2&axes=b3r3&e=3,2,1,3,1,5,6,4,2&w=3:1,3,0&m=3x3:111110100",
		"One score array, one mask, one set of weights, four numbers. In keras-2.2 the two divisors multiply."],
	["(N, 1) on (N,)", "regime=keras-2.2&axes=b3&e=1,2,6&w=3x1:3,2,1",
		"In keras-2.2 a column of weights on a row of losses becomes a square: every weight meets every sample. Later regimes drop or append the axis."],
	["SUM", "regime=keras-3&reduction=sum&axes=b2r2c2k3&fn=mean&e=1,2,0,0,1,2,3,0,0,1,1,1,0,0,3,2,2,2,0,3,3,1,0,2",
		"After the loss function nothing is divided: the number grows with the batch and the picture. The mean over class stays, because the loss function takes it."],
	["Short last batch", "regime=keras-3&axes=b5r2&e=1,3,2,2,4,0,1,1,9,7&m=5x2:1110111011",
		"See the table of smaller batches: each batch counts its own divisor, so with a mask the number of the epoch depends on the batch size."],
	["All masked", "regime=tf-keras-2.10&axes=b1r3&e=2,1,4&m=1x3:000",
		"Nothing is left, and the divisor is zero. Two regimes say NaN, two say zero."],
	["NaN under weight 0", "regime=keras-3&axes=b3&e=1,NaN,3&w=3:1,0,1",
		"Zero times NaN is NaN. A weight does not remove a missing label: replace the label first."],
	["A loss of one number", "regime=keras-3&axes=0&e=2&w=3:0,1,5",
		"The loss function has averaged already. Weights can no longer choose among samples: they scale the number, or are refused."],
	["Two outputs", "regime=keras-3&axes=b2k3&fn=sum&e=0,0.7,0,0,0,1.1&axes2=b2&e2=400,100&lw2=0.01",
		"Each output becomes a number, is multiplied by its loss weight, and the products are added. Keras prints the outputs before their weights."],
].map(([name, state, notice]) => ({ name, state: START + state, notice }));

const EXPERIMENTS = [
	["Which axis", 2, "regime=keras-3&axes=b3r3&e=3,5,1,3,1,5,6,4,2&w=3x1:1,3,0",
		"Three weights lie along the wrong axis in keras-3. Make them a column, one a sample: the shape (3, 1)."],
	["A weight that is nearly zero", 3, "regime=keras-2.2&axes=b3&e=0,4,4&w=3:0.1,1e-9,0.1",
		"Change the weight 0 in the middle to 1e-9 and stay in keras-2.2. A billionth of a weight: what does it do to the number?"],
	["Mean or sum over class", 0, PRESETS[0].state.slice(START.length).replace("fn=mean", "fn=sum"),
		"binary_crossentropy takes the mean over class, categorical_crossentropy the sum. Switch the loss function of the five classes from mean to sum."],
].map(([name, preset, goal, text]) => ({ name, preset, goal: START + goal, text }));

window.lossvizPlayground = { reduce, compare, evaluate, epoch, shares, read, write, pythonCode, PRESETS, EXPERIMENTS };

// --- drawing

/** An element: attributes, `on...` listeners, then children. Text never becomes HTML. */
function make(tag, attributes = {}, ...children) {
	const svg = ["svg", "rect", "text"].includes(tag);
	const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (name in node && !svg && typeof value !== "string") node[name] = value;
		else if (value !== null) node.setAttribute(name, value);
	}
	node.append(...children.flat().filter((child) => child !== null));
	return node;
}
const line = (...children) => make("div", { class: "line" }, ...children);
const group = (name, ...children) => make("div", { class: `line ${name}`, role: "group", "aria-label": name }, ...children);
const quiet = (...children) => make("p", { class: "q" }, ...children);
const dim = (...children) => make("span", { class: "q" }, ...children);
const heading = (text) => make("h2", {}, text);
const button = (text, onclick, more) => make("button", { type: "button", onclick, ...more }, text);
const folded = (title, ...children) => make("details", {}, make("summary", {}, title), ...children);
const table = (head, lines) => make("table", {}, make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
	make("tbody", {}, lines.map(([first, ...cells]) =>
		make("tr", {}, make("th", { scope: "row" }, first), cells.map(([text, kind]) => make("td", { class: kind || "" }, text))))));

// The colour maps of lossviz.plots at every eighth, and its other colours.
const SEQUENTIAL = ["#fcfdbf", "#feca8d", "#fd9668", "#f2625d", "#cd4071", "#a02f7f", "#732081", "#471078", "#1a1042"];
const DIVERGING = ["#053061", "#2a71b2", "#6bacd1", "#c2ddec", "#f7f6f6", "#fbccb4", "#e48066", "#ba2832", "#67001f"];
const NAN_COLOR = "#00B3A4";
const AXIS_COLORS = { batch: "#D9E2EC", row: "#D3EBDD", col: "#E0EDC4", class: "#FFE0C2" };

/** Fill and text colour of a value, for values that reach from `low` to `high`. */
function colors(value, low, high) {
	const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
	let fill = rgb(NAN_COLOR);
	if (Number.isFinite(value)) {
		const stops = low < 0 ? DIVERGING : SEQUENTIAL, most = Math.max(-low, high) || 1;
		const place = 8 * (low < 0 ? 0.5 + value / most / 2 : value / most), k = Math.min(7, Math.floor(place)), b = rgb(stops[k + 1]);
		fill = rgb(stops[k]).map((x, i) => Math.round(x + (b[i] - x) * (place - k)));
	}
	const [r, g, b] = fill.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
	return [`rgb(${fill})`, 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff"];
}

const range = (data) => data.filter(Number.isFinite).reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [0, 0]);

/** A number in a cell. */
function short(x) {
	const text = plain(x, 3);
	return text.length > 6 && Number.isFinite(x) ? x.toExponential(1).replace(".0e", "e").replace("+", "") : text;
}

const coordinates = (shape, i) => shape.map((n, k) => Math.floor(i / count(shape.slice(k + 1))) % n);
const where = (at, axes) => at.map((n, k) => `${axes[k] || `axis ${k}`} ${n}`);

/** The last axis goes across, the one before it down, others make more planes. */
function planes(shape, axes, draw) {
	const [down, across] = [1, 1, ...shape].slice(-2), outer = shape.slice(0, -2);
	return each(count(outer), (i) => draw(i * down * across, down, across, where(coordinates(outer, i), axes).join(" · ")));
}

/** A picture of an array; its name for a screen reader holds the numbers. It is remembered in `pictures`. */
function picture(a, axes, places, pictures, unit = "") {
	const n = a.data.length, W = 48, H = 26, [low, high] = range(a.data), rects = [];
	if (n > MOST) return quiet(`${plain(n)} numbers, too many to draw`);
	const label = n > 36 ? `${n} numbers from ${short(low)} to ${short(high)}` : a.data.map(short).join(", ");
	pictures.push({ rects, shape: a.shape, places });
	return make("div", { class: "planes", role: "img", "aria-label": `${shapeText(a.shape)}: ${label}${unit}` },
		planes(a.shape, axes, (start, down, across, caption) => {
			const svg = make("svg", { width: across * W, height: down * H });
			for (let k = 0; k < down * across; k++) {
				const [fill, ink] = colors(a.data[start + k], low, high), x = (k % across) * W, y = Math.floor(k / across) * H;
				rects.push(make("rect", { x: x + 1, y: y + 1, width: W - 2, height: H - 2, rx: 3, fill }));
				svg.append(rects.at(-1), make("text", { x: x + W / 2, y: y + 17, fill: ink, "text-anchor": "middle" }, short(a.data[start + k])));
			}
			return make("figure", {}, caption ? make("figcaption", {}, caption) : null, svg);
		}));
}

/** The words of a step with its divisor set off and the axes in their colours. */
function words(text, divisor) {
	const mark = divisor === null ? null : `÷ ${plain(divisor)}`;
	return text.split(/(÷ [^\s,;]+(?:\u00a0\d+)*|\b(?:batch|row|col|class)\b)/).map((piece) => {
		if (piece === mark) return make("b", { class: "div" }, piece);
		return AXIS_COLORS[piece] ? make("span", { class: "axis", style: `background:${AXIS_COLORS[piece]}` }, piece) : piece;
	});
}

const STYLE = `
.lvp{--bg:#fff;--ink:#1F2933;--q:#5A6672;--line:#7B8794;--soft:#f0f2f4;--accent:#34506B;--warn:#8a4b00;--bad:#a61b1b;
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
html[data-theme=dark] .lvp{--bg:#15191e;--ink:#e4e8ec;--q:#a3adb8;--soft:#222931;--accent:#86a9cc;--warn:#f0b35c;--bad:#ff9c8f}
.lvp *{box-sizing:border-box}
.lvp [hidden],.lvp .note:empty,.lvp .alert:empty{display:none!important}
.lvp p,.lvp h2,.lvp ol,.lvp table{margin:.4em 0;color:inherit}
.lvp h2{font-size:1.1em;margin-top:1.2em;border-top:1px solid var(--line);padding-top:.6em}
.lvp fieldset,.lvp legend,.lvp figure{border:0;padding:0;margin:0;min-width:0}
.lvp legend,.lvp .q,.lvp label,.lvp figcaption{color:var(--q);font-size:.88em;text-align:left;margin:0}
.lvp .line,.lvp .planes,.lvp .top{display:flex;flex-wrap:wrap;gap:.45em .7em}
.lvp .line{align-items:center;margin:.4em 0}
.lvp button,.lvp select,.lvp .field{font:inherit;color:var(--ink);background:var(--bg);border:1px solid var(--line);border-radius:6px;min-height:34px;padding:.1em .55em;max-width:100%;margin:0}
.lvp button[aria-pressed=true]{background:var(--accent);color:var(--bg)}
.lvp :focus-visible,.lvp label:has(:focus-visible){outline:3px solid #E69F00;outline-offset:1px;box-shadow:0 0 0 1px var(--ink)}
.lvp button,.lvp select,.lvp input{scroll-margin-top:8em}
.lvp .top{position:sticky;top:0;z-index:2;background:var(--pst-color-background,var(--bg));border-bottom:1px solid var(--line);align-items:baseline}
.lvp .top .q{order:-1;margin-right:auto}
.lvp output{order:-2;font-size:2.6em;font-weight:700;line-height:1.2}
.lvp .traps>button{font-size:.9em}
.bd-article .lvp .top{top:48px}
.lvp .tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.4em}
.lvp .tiles label{position:relative;border:1px solid var(--line);border-radius:6px;padding:.3em .5em;color:var(--ink)}
.lvp .tiles input{position:absolute;opacity:0;inset:0;width:100%;height:100%;margin:0;cursor:pointer}
.lvp .tiles label:has(:checked){box-shadow:inset 0 0 0 3px var(--accent)}
.lvp .tiles b,.lvp .tiles .q,.lvp svg{display:block}
.lvp .tiles b{font-size:1.3em}
.lvp svg text{font:12px system-ui,sans-serif}
.lvp rect.on{stroke:#0072B2;stroke-width:4}
.lvp [role=row]{display:flex}
.lvp [role=gridcell]>*{display:block;width:46px;height:34px;min-height:0;margin:1px;padding:0;border:0;border-radius:3px;text-align:center;font-size:13px;background:var(--cell);color:var(--text)}
.lvp [role=gridcell]>[aria-checked=false]{background:repeating-linear-gradient(135deg,var(--soft) 0 3px,var(--bg) 3px 6px);color:var(--ink)}
.lvp [aria-invalid]{outline:2px dashed var(--bad)}
.lvp .steps{list-style:none;padding:0}
.lvp .steps>li{border-left:3px solid var(--line);padding:0 0 .7em .7em}
.lvp .div{background:var(--ink);color:var(--bg);border-radius:4px;padding:0 .35em;white-space:nowrap}
.lvp .axis{color:#1F2933;border-radius:4px;padding:0 .25em}
.lvp table{border-collapse:collapse;display:table;width:100%;font-size:.92em}
.lvp th,.lvp td{text-align:left;vertical-align:top;border:0;border-bottom:1px solid var(--line);padding:.3em .6em .3em 0;background:none;color:var(--ink);font-weight:400}
.lvp td:nth-child(3):last-child{overflow-wrap:anywhere}
.lvp .differs{color:var(--warn)}.lvp .bad{color:var(--bad)}
.lvp pre{background:var(--soft);color:var(--ink);white-space:pre-wrap}
.lvp summary{cursor:pointer}
.lvp .note,.lvp .alert{border-left:4px solid var(--accent);background:var(--soft);padding:.4em .7em}
.lvp .alert{border-color:var(--bad);color:var(--bad)}
@media(max-width:600px){.lvp .traps{flex-wrap:nowrap;overflow-x:auto;padding:4px}.lvp .traps>*{flex:none}.lvp .tiles{grid-template-columns:1fr 1fr}.lvp output{font-size:2em;margin-right:auto}.lvp .top .q{order:1;width:100%}.lvp button,.lvp select,.lvp .field,.lvp summary,.lvp [role=gridcell]>*{min-height:44px}}
`;

// --- the page

/** Shapes that weights or masks usually have, for a score array of `shape`. */
function usual(shape) {
	const list = [["one a sample", shape.slice(0, 1)]];
	if (shape.length > 1) list.push(["one a sample, as a column", shape.map((n, k) => (k ? 1 : n))]);
	if (shape.length > 2) list.push(["over the first two axes", shape.slice(0, 2)]);
	list.push(["one an element of the score array", shape], ["the same, and a last axis of 1", [...shape, 1]]);
	if (shape.length > 1) list.push(["along the last axis", shape.slice(-1)]);
	return [...list, ["one number", []]];
}

/** `a` with axes `to` and `shape`: sizes that grow repeat what is there, axes that go keep their first entry. */
function remap(a, from, to, shape) {
	return nd(shape, each(count(shape), (i) => {
		const at = coordinates(shape, i), old = from.map((name, k) => (to.includes(name) ? at[to.indexOf(name)] % a.shape[k] : 0));
		return a.data[old.reduce((place, n, k) => place * a.shape[k] + n, 0)];
	}));
}

function reshaped(a, shape) {
	if (a && a.data.length === count(shape)) return nd(shape, a.data);
	return a && a.shape.length === shape.length ? remap(a, order(shape), order(shape), shape) : fill(shape, 1);
}

function mount(root) {
	let state, chosen = 0, pictures = [], timer;
	const status = (kind) => make("p", { class: kind, role: "status" });
	const alertBox = make("p", { class: "alert", role: "alert" }), note = status("note"), said = status("q");
	const number = make("output"), equation = dim(), inputs = make("div"), results = make("div");
	const code = make("code");
	const address = make("input", { class: "field", readOnly: true, hidden: true, "aria-label": "to copy by hand" });
	const focused = () => (inputs.contains(document.activeElement) && document.activeElement.dataset.key) || "";
	const is = (one) => write(read(one)) === write(state);

	const presets = PRESETS.map((one) => button(one.name, () => open(one.state)));
	const tiles = REGIMES.map((regime) => {
		const radio = make("input", { type: "radio", name: "lvp-regime", onchange: () => { state.regime = regime; update(); } });
		const value = make("b");
		return { regime, radio, value, node: make("label", {}, radio, regime, value, dim(TITLES[regime])) };
	});
	const tries = EXPERIMENTS.map(({ name, text, preset, goal }) => {
		const end = read(goal), reached = status("");
		const node = make("li", {}, make("p", {}, make("b", {}, `${name}. `), text), line(button("Set it up", () => open(PRESETS[preset].state)),
			folded("The number to expect", make("b", { class: "expected" }, plain(evaluate(end, end.regime).value, 6)))), reached);
		return { goal, reached, node };
	});
	root.className = "lvp";
	root.replaceChildren(make("style", {}, STYLE), alertBox, make("div", { class: "top" }, number, button("Reset", () => open(PRESETS[0].state)), button("Copy link", () => copy(location.href.split("#")[0] + write(state), "Link copied.")), equation), line(address, said),
		make("fieldset", {}, make("legend", {}, "The same arrays in four regimes. Choose the one to follow:"), make("div", { class: "tiles" }, tiles.map((tile) => tile.node))),
		group("famous traps", dim("Famous traps:"), presets), note,
		inputs, results,
		folded("The same in Python", make("pre", {}, code), button("Copy code", () => copy(code.textContent, "Code copied."))),
		heading("Three experiments"), make("ol", {}, tries.map((one) => one.node)));

	function remember() {
		clearTimeout(timer);
		history.replaceState(null, "", write(state));
	}

	function open(one) {
		show(read(one));
		remember();
	}

	function show(next) {
		state = next;
		chosen = 0;
		alertBox.textContent = "";
		note.textContent = (PRESETS.find((one) => is(one.state)) || { notice: "" }).notice;
		build();
		update(false);
	}

	/** The state in the address. An address of a heading is none, and leaves the page as it is. */
	function load(first) {
		const { hash } = location;
		let message = "";
		try {
			if (hash.startsWith(START)) return show(read(hash));
			if (hash.length > 1 && !document.getElementById(decodeURIComponent(hash.slice(1)))) message = `it does not begin with ${START}`;
		} catch (error) {
			message = error.message;
		}
		if (first || message || hash.length < 2) show(read(PRESETS[0].state));
		if (message) alertBox.textContent = `The state in this address can not be read: ${message}. The first preset is shown instead.`;
	}

	async function copy(text, done) {
		remember();
		try {
			await navigator.clipboard.writeText(text);
			said.textContent = done;
		} catch {
			address.hidden = false;
			address.value = text;
			address.select();
			said.textContent = "Copy it from here.";
		}
	}

	/** Rebuild what is edited; the focus stays on the control that it was on. */
	function build() {
		const key = focused();
		const output = state.outputs[chosen], many = state.outputs.length > 1, of = many ? ` of output ${chosen + 1}` : "", shape = scoreOf(output).score.shape;
		const changed = (change) => { change(); build(); update(); };
		const tabs = !many ? [] : state.outputs.map((_, k) => button(`Output ${k + 1}`, () => changed(() => { chosen = k; }), { "data-key": `tab${k}`, "aria-pressed": String(k === chosen) }));
		const more = state.outputs.length < OUTPUTS ? [button("Add an output", () => changed(addOutput), { "data-key": "add" })] : [];
		if (many) more.push(button(`Remove output ${chosen + 1}`, () => changed(() => { state.outputs.splice(chosen, 1); chosen = 0; }), { "data-key": "add" }));
		const axes = AXES.map(([name, , most]) => select(name === "col" ? "column" : name, name, each(most + 1, (n) => [n, n || "none"]),
			Object.fromEntries(output.axes)[name] || 0, (n) => changed(() => setAxis(name, Number(n)))));
		const fn = [["mean", "mean (mse, mae, binary crossentropy)"], ["sum", "sum (categorical crossentropy)"]];
		inputs.replaceChildren(
			heading(`Element losses${of}`), group("shape", tabs, axes, hasClass(output) ? select("over class", "fn", fn, output.fn, (one) => { output.fn = one; update(); }) : null),
			editor(output.e, names(output), hasClass(output) ? "element losses" : "score array", "e"),
			...weights("Sample weights", "w", output, shape, changed), ...weights("Mask", "m", output, shape, changed), heading("Reduction"),
			line(select("reduction", "reduction", ALL_REDUCTIONS.map((one) => [one, one]), state.reduction, (one) => { state.reduction = one; update(); }),
				make("label", {}, `loss weight${of} `, lossWeight(output)), more));
		const again = key && inputs.querySelector(`[data-key="${key}"]`);
		if (again) again.focus();
	}

	function select(label, key, options, value, change) {
		return make("label", {}, `${label} `, make("select", { "data-key": key, onchange: (event) => change(event.target.value) },
			options.map(([v, text]) => make("option", { value: String(v), selected: same(v, value) }, text))));
	}

	function lossWeight(output) {
		const set = ({ target }) => {
			const value = target.value.trim() === "" ? 1 : readNumber(target.value);
			target.toggleAttribute("aria-invalid", value === null);
			if (value === null) return;
			output.lw = value === 1 ? null : value;
			update();
		};
		return make("input", { class: "field", inputmode: "decimal", size: 5, "data-key": "lw", value: numberText(output.lw === null ? 1 : output.lw), oninput: set });
	}

	function addOutput() {
		const axes = state.outputs[0].axes.filter(([name]) => name === "batch");
		chosen = state.outputs.push({ axes, fn: "mean", e: fill(axes.map((axis) => axis[1]), 1), w: null, m: null, lw: null }) - 1;
	}

	function setAxis(name, size) {
		for (const output of name === "batch" ? state.outputs : [state.outputs[chosen]]) {
			const before = names(output), old = usual(scoreOf(output).score.shape), wanted = { ...Object.fromEntries(output.axes), [name]: size };
			output.axes = AXES.flatMap(([axis]) => (wanted[axis] ? [[axis, wanted[axis]]] : []));
			output.e = remap(output.e, before, names(output), sizes(output));
			const now = usual(scoreOf(output).score.shape);
			for (const key of ["w", "m"]) { // weights of a usual shape go along
				const kind = output[key] && old.find(([, shape]) => same(shape, output[key].shape));
				const next = kind && now.find(([text]) => text === kind[0]);
				if (next) output[key] = reshaped(output[key], next[1]);
			}
		}
	}

	/** The controls of sample weights or mask: a shape, and its cells. */
	function weights(title, key, output, shape, changed) {
		const own = output[key], name = title.toLowerCase(), set = (next) => changed(() => { output[key] = next; });
		const shapes = usual(shape).filter(([, s], k, all) => all.findIndex(([, other]) => same(other, s)) === k);
		const value = !own ? "none" : shapes.some(([, s]) => same(s, own.shape)) ? String(own.shape) : "other";
		const field = make("input", { class: "field", size: 9, "data-key": `${key}shape`, value: own ? own.shape.join(", ") : "", "aria-label": `shape of the ${name}` });
		const use = () => {
			try {
				const next = readShape(field.value);
				alertBox.textContent = "";
				set(reshaped(own, next));
			} catch (error) {
				alertBox.textContent = `${error.message}.`;
			}
		};
		const other = make("span", { class: "line", hidden: value !== "other" }, field, button("Use this shape", use, { "data-key": `${key}use` }));
		const change = (v) => {
			if (v === "other") { other.hidden = false; field.focus(); } else set(v === "none" ? null : reshaped(own, v ? v.split(",").map(Number) : []));
		};
		const options = [["none", "none"], ...shapes.map(([text, s]) => [s, `${shapeText(s)} ${text}`]), ["other", "another shape …"]];
		return [heading(title), line(select("shape", key, options, value, change), other), ...(own ? [editor(own, [], name, key)] : [])];
	}

	/** A grid of cells, one tab stop: arrows, Home, End and Page keys go through it. */
	function editor(a, axes, title, key) {
		const cells = [], isMask = key === "m", [down, last] = [1, 1, ...a.shape].slice(-2);
		let before = null, extent = range(a.data);
		const paint = () => cells.forEach((cell, i) => {
			const [fill, ink] = isMask ? ["#34506B", "#fff"] : colors(a.data[i], ...extent);
			cell.style.cssText = `--cell:${fill};--text:${ink}`;
			if (isMask) { cell.setAttribute("aria-checked", String(a.data[i] === 1)); cell.textContent = a.data[i]; }
		});
		const set = (i, value) => { a.data[i] = value; extent = range(a.data); paint(); update(); };
		const onfocus = (i) => {
			cells.forEach((cell, k) => { cell.tabIndex = k === i ? 0 : -1; });
			before = a.data[i];
			if (!isMask) cells[i].select();
			mark();
		};
		const enter = (i) => {
			const value = readNumber(cells[i].value);
			cells[i].toggleAttribute("aria-invalid", value === null);
			if (value !== null) set(i, value);
		};
		const leave = (i) => {
			const bad = cells[i].hasAttribute("aria-invalid");
			alertBox.textContent = bad ? `${word(cells[i].value)} is not a number; the cell keeps ${numberText(a.data[i])}.` : "";
			cells[i].removeAttribute("aria-invalid");
			cells[i].value = numberText(a.data[i]);
		};
		const onkeydown = (event) => {
			const i = cells.indexOf(event.target), row = i - (i % last), whole = event.ctrlKey || event.metaKey;
			const to = {
				ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - last, ArrowDown: i + last, PageUp: i - down * last, PageDown: i + down * last,
				Home: whole ? 0 : row, End: whole ? cells.length - 1 : row + last - 1, ...(isMask ? {} : { Enter: cells[i + last] ? i + last : i }),
			}[event.key];
			if (event.key === "Escape" && !isMask) { cells[i].value = numberText(before); enter(i); }
			if (to === undefined || event.altKey || event.shiftKey) return;
			event.preventDefault();
			if (to === i) leave(i);
			else if (cells[to]) cells[to].focus();
		};
		const cell = (i) => {
			const common = { tabIndex: i ? -1 : 0, "data-key": `${key}${i}`, "aria-label": where(coordinates(a.shape, i), axes).join(", ") || title, onfocus: () => onfocus(i) };
			cells.push(isMask ? button("", () => set(i, 1 - a.data[i]), { ...common, role: "checkbox" })
				: make("input", { ...common, inputmode: "decimal", autocomplete: "off", value: numberText(a.data[i]), oninput: () => enter(i), onblur: () => leave(i) }));
			return make("div", { role: "gridcell" }, cells[i]);
		};
		const grid = make("div", { class: "planes", role: "grid", "aria-label": `${title} ${shapeText(a.shape)}`, onkeydown },
			planes(a.shape, axes, (start, height, across, caption) => make("div", { role: "rowgroup", "aria-label": caption || title },
				caption ? make("div", { role: "row" }, make("div", { role: "rowheader", class: "q" }, caption)) : null,
				each(height, (r) => make("div", { role: "row" }, each(across, (c) => cell(start + r * across + c)))))));
		paint();
		const ways = a.shape.map((_, k) => axes[k] || `axis ${k}`).slice(-2).reverse().map((name, k) => `${name} goes ${k ? "down" : "across"}`);
		const hint = isMask ? "1 counts, 0 is masked." : key === "e" ? `${title === "element losses" ? "" : "Without a class axis this is what the loss function returns. "}Choose a cell: its path is outlined in every step.` : "";
		return make("div", {}, quiet(`${ways.join(", ") || "one number"}. ${hint}`), grid);
	}

	/** Outline what the chosen element has become in every step. */
	function mark() {
		const key = focused();
		if (!/^e\d/.test(key)) return;
		const at = coordinates(state.outputs[chosen].e.shape, Number(key.slice(1)));
		for (const { rects, shape, places } of pictures) {
			rects.forEach((rect, i) => rect.classList.toggle("on", coordinates(shape, i).every((n, k) => places[k] === null || n === at[places[k]])));
		}
	}

	function update(save = true) {
		const { found, reference } = compare(state), mine = found[state.regime], part = mine.parts[chosen], output = state.outputs[chosen];
		const text = (one) => (one.refusal ? "refused" : one.array ? `array ${shapeText(one.array)}` : plain(one.value, 6));
		const kind = (one) => (one.refusal ? "bad" : differ(one.value, found[reference].value) ? "differs" : "");
		for (const { regime, radio, value } of tiles) {
			radio.checked = regime === state.regime;
			value.className = kind(found[regime]);
			value.textContent = text(found[regime]) + (value.className === "differs" ? " ≠" : "");
		}
		number.textContent = text(mine);
		number.className = mine.refusal || Number.isNaN(mine.value) ? "bad" : "";
		const first = scoreOf(output), many = state.outputs.length > 1 ? ` of output ${chosen + 1}` : "";
		const divisors = part.refusal ? [] : [first.classes, ...Object.values(part.divisors)].filter((d) => d !== 1);
		equation.replaceChildren(`${state.regime}: ${output.e.data.length} element loss${output.e.data.length > 1 ? "es" : ""}${many}`, ...divisors.flatMap((d) => [" ", make("b", { class: "div" }, `÷ ${plain(d)}`)]));
		presets.forEach((one, k) => one.setAttribute("aria-pressed", String(is(PRESETS[k].state))));
		code.textContent = pythonCode(state);
		for (const { goal, reached } of tries) {
			const there = is(goal) ? "Reached: this is the number above." : "";
			if (reached.textContent !== there) reached.textContent = there;
		}
		pictures = [];
		results.replaceChildren(heading(`Step by step, in ${state.regime}${many}`), steps(mine, part, first),
			...(mine.value === undefined ? [] : paying(mine, output)),
			heading("The four regimes side by side"),
			table(["regime", "number", reference ? `first step that differs from ${reference}` : "why"], REGIMES.map((regime) => {
				const one = found[regime];
				return [regime, [text(one), kind(one)], [one.refusal || one.difference || (regime === reference ? "" : "none")]];
			})), ...batches());
		mark();
		clearTimeout(timer);
		if (save) timer = setTimeout(remember, 200);
	}

	function steps(mine, part, { score, axes, step }) {
		const add = (one, values, places) => {
			const [a, b] = [count(one.inputShape), count(one.outputShape)];
			return make("li", {}, make("p", {}, words(one.text, one.divisor), dim(a === b ? "" : ` ${plain(a)} → ${plain(b)} numbers`)),
				values && picture(values, places.map((k) => axes[k]), places, pictures));
		};
		const lines = step ? [add(step, score, order(axes))] : [];
		if (part.refusal) lines.push(make("li", { class: "bad" }, part.refusal));
		else lines.push(...part.steps.slice(step ? 1 : 0).map((one, k) => add(one, step || k ? one.values : null, one.places)));
		if (mine.parts.length > 1 && mine.value !== undefined) {
			lines.push(make("li", {}, `the outputs are added: ${mine.parts.map((one) => plain(one.value)).join(" + ")} = ${plain(mine.value)}`));
		}
		return make("ol", { class: "steps" }, lines);
	}

	/** Who pays: the share of each element in the number, and its sums along each axis. */
	function paying(mine, output) {
		const share = shares(state, mine, chosen), axes = names(output), percent = (x) => (100 * x) / mine.value;
		const bars = axes.map((name, axis) => {
			const sums = sumOver(share, order(axes).filter((k) => k !== axis)).data, most = Math.max(...range(sums.map(Math.abs))) || 1;
			const texts = sums.map((x) => plain(x, 4) + (Number.isFinite(percent(x)) ? `, ${plain(percent(x), 3)} %` : ""));
			return make("figure", {}, make("svg", { width: 250, height: sums.length * 22, role: "img", "aria-label": sums.map((_, k) => `${name} ${k}: ${texts[k]}`).join("; ") },
				sums.flatMap((x, k) => {
					const width = Number.isFinite(x) ? (90 * Math.abs(x)) / most : 0, y = k * 22;
					return [make("text", { x: 0, y: y + 16, fill: "currentColor" }, `${name} ${k}`), make("rect", { x: 56, y: y + 4, width, height: 14, fill: x < 0 ? "#CC4411" : "#4C86B8" }),
						make("text", { x: 61 + width, y: y + 16, fill: "currentColor" }, texts[k])];
				})));
		});
		const whole = share.data.every((x) => Number.isFinite(percent(x)));
		return [heading(`Who pays: the share of each element in the number${whole ? ", in per cent" : ""}`),
			picture(whole ? map(share, percent) : share, axes, order(axes), pictures, whole ? " per cent" : ""), make("div", { class: "planes" }, bars)];
	}

	/** What `evaluate` shows if the same samples come in smaller batches. */
	function batches() {
		const n = batchOf(state.outputs[0]) || 0, values = each(n, (k) => REGIMES.map((regime) => epoch(state, regime, k + 1)));
		if (n < 2 || values.flat().every((x) => typeof x !== "number")) return [];
		return [heading("The same samples in smaller batches"), quiet("What evaluate shows: the mean of the batches' losses, each counted as often as it has samples."),
			table(["batch size", ...REGIMES], values.map((row, k) => [String(k + 1), ...row.map((x, r) => {
				return [x === null ? "–" : x === "refused" ? x : plain(x), differ(x, values[n - 1][r]) ? "differs" : ""];
			})]))];
	}

	addEventListener("hashchange", () => load(false));
	load(true);
}

const root = document.getElementById("lossviz-playground");
if (root) mount(root);
})();
