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
/** Sum and length: the mean as a fraction. */
const fraction = (a) => [total(a.data), a.data.length];
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
				this.divide("mask", fraction(this.mask), `the mean of the mask: ${keptText(this.mask)}`, safe);
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
		const meets = factor.shape.map((n, k) => (n === 1 ? null : this.places[k + offset]));
		const given = name === "mask" ? this.mask : this.weight;
		let text = `× ${name === "mask" ? "mask" : "sample weights"} ${shapeText(given.shape)}`;
		if (!same(factor.shape, given.shape)) text += ` as ${shapeText(factor.shape)}`;
		text += along.length ? ` along ${along.join(", ")}: ` : ": ";
		text += name === "mask" ? keptText(given) : rangeText(given);
		if (!same(now, shape)) text += `; broadcast ${shapeText(shape)} → ${shapeText(now)}`;
		this.effects[name] = [this.effect(factor), text];
		this.step("multiply", text, shape, null, { factor, meets, name, along });
	}

	divide(name, [part, whole], text, safe = false) {
		const divisor = whole ? part / whole : NaN;
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
		this.step("divide", text, this.shape, divisor, { name, ratio: `${plain(part)}/${plain(whole)}` });
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
		if (gone.length || divisor !== 1) this.step(op, text, shape, divisor, { over, first });
	}

	result(lossWeight) {
		if (lossWeight !== null) {
			const shape = this.shape;
			this.values = map(this.values, (x) => x * lossWeight);
			this.back.push((g) => map(g, (x) => x * lossWeight));
			this.step("multiply", `× ${plain(lossWeight)} (loss weight)`, shape, null, { name: "loss weight" });
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

	step(op, text, before, divisor = null, more = {}) {
		this.steps.push({
			op, text, inputShape: before, outputShape: this.shape, divisor, values: this.values, places: this.places, ...more,
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
			call.divide("mask", fraction(mask), `the mean of the mask: ${keptText(mask)}`);
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
			call.divide("weights", fraction(present), words);
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
