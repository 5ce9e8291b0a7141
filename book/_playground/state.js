// --- the state of the page: regime, reduction; of each output axes, class step, element losses, weights, mask

/** Name, letter in an address, most. A "row" without a "col" is a "step". */
const AXES = [["batch", "b", 6], ["row", "r", 4], ["col", "c", 4], ["class", "k", 6]];
const LETTERS = { ...Object.fromEntries(AXES), step: "s" };
const MOST = 600, RANK = 5, OUTPUTS = 3;
const sizes = (output) => output.axes.map(([, n]) => n);
const names = (output) => output.axes.map(([name]) => name);
const hasClass = (output) => names(output).includes("class");
const named = (axes) => {
	const planes = axes.some(([name]) => name === "col");
	return axes.map(([name, n]) => [name === "row" || name === "step" ? (planes ? "row" : "step") : name, n]);
};
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

/** The smaller batches of one size: first and last sample, loss, and the mean so far, which the progress bar shows. Null where there are none. */
function batchLosses(state, regime, size) {
	const n = batchOf(state.outputs[0]), fits = (a) => a === null || a.shape[0] === n;
	if (!n || !state.outputs.every((o) => fits(o.w) && fits(o.m))) return null;
	const list = [];
	let sum = 0;
	for (let start = 0; start < n; start += size) {
		const end = Math.min(n, start + size), cut = (a) => a && rows(a, start, end);
		const outputs = state.outputs.map((o) => ({
			...o, axes: [["batch", end - start], ...o.axes.slice(1)], e: cut(o.e), w: cut(o.w), m: cut(o.m),
		}));
		const { value, refusal } = evaluate({ ...state, outputs }, regime);
		if (value === undefined) return refusal ? "refused" : null;
		sum += (end - start) * value;
		list.push({ start, end, value, soFar: sum / end });
	}
	return list;
}

/** The number of `evaluate` if the samples came in batches of `size`; null where they can not be split, or "refused". */
function epoch(state, regime, size) {
	const list = batchLosses(state, regime, size);
	return Array.isArray(list) ? list.at(-1).soFar : list;
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
		add("axes", o.axes.map(([name, n]) => LETTERS[name] + n).join("") || "0");
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
	const match = /^(?:0|(?:b([1-6]))?(?:[rs]([1-4]))?(?:c([1-4]))?(?:k([1-6]))?)$/.exec(text);
	if (!match || !text) throw new Error(`${key}=${word(text)} is not of the form b2s3 or b2r3c3k5: batch and class up to 6, step, row and col up to 4`);
	return named(AXES.flatMap(([name], k) => (match[k + 1] ? [[name, Number(match[k + 1])]] : [])));
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
