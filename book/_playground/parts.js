// --- parts of a view: the page has all of them, an embedded view some

/** Shapes that weights or masks usually have, for a score array of `shape`. */
function usual(shape) {
	const list = [["one per sample", shape.slice(0, 1)]];
	if (shape.length > 1) list.push(["one per sample, as a column", shape.map((n, k) => (k ? 1 : n))]);
	if (shape.length > 2) list.push(["over the first two axes", shape.slice(0, 2)]);
	list.push(["one per element of the score array", shape], ["the same, and a last axis of 1", [...shape, 1]]);
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

const FUNCTIONS = [["mean", "mean (mse, mae, binary crossentropy)"], ["sum", "sum (categorical crossentropy)"]];
const resultText = (one) => (one.refusal ? "refused" : one.array ? `array ${shapeText(one.array)}` : plain(one.value, 6));

/** The number, and what the last edit did to it. */
function makeNumber() {
	const number = make("output", { "aria-label": "the number" }), effect = make("p", { class: "effect", role: "status" }), equation = make("p", { class: "q equation" });
	let last;
	return {
		number, effect, equation,
		/** `words` say what was edited, `from` is the number before it, `silent` why nothing came of it. */
		show(state, mine, chosen, { words: what = "", from, silent = "", hidden = false }) {
			const part = mine.parts[chosen], output = state.outputs[chosen], n = output.e.data.length, now = mine.value;
			number.textContent = resultText(mine);
			number.className = mine.refusal || Number.isNaN(now) ? "bad" : "";
			const many = state.outputs.length > 1 ? ` of output ${chosen + 1}` : "", { classes, step } = scoreOf(output);
			const divided = part.refusal ? [] : [...(step && classes !== 1 ? [{ divisor: classes }] : []), ...part.steps.filter((one) => one.divisor !== null && one.divisor !== 1)];
			const all = classes * (part.divisor ?? 1), wide = (text) => make("span", { class: "wide" }, text);
			equation.replaceChildren(...(hidden ? ["Your guess first: the four numbers are covered."] : [`${state.regime}:`, wide(` ${n} element loss${n > 1 ? "es" : ""}${many}`),
				...divided.flatMap((d) => [" ", make("b", { class: "div" }, divisorText(d))]), ...(divided.length > 1 ? [` = ÷ ${plain(all)}`, wide(" in all")] : [])]));
			if (what) {
				const numbers = typeof from === "number" && typeof now === "number", stays = numbers ? !differ(now, from) && Number.isNaN(now) === Number.isNaN(from) : from === now;
				const step = now - from, more = Number.isFinite(step) ? ` (${step < 0 ? "−" : "+"}${plain(Math.abs(step), 3)})` : "";
				const result = stays ? `the number stays ${resultText(mine)}` : `${numbers ? plain(from) : "refused"} → ${numbers ? plain(now) + more : resultText(mine)}`;
				const text = `${what}. ${silent ? `${silent[0].toUpperCase()}${silent.slice(1)}; ` : ""}${stays && silent ? "" : stays ? "Still, " : ""}${result}.`;
				if (text !== last) effect.textContent = text;
				last = text;
			} else effect.textContent = last = "";
		},
	};
}

/** The four regimes as a choice; `regimes` are those to show. */
function makeTiles(name, regimes, choose, title) {
	const tiles = regimes.map((regime) => {
		const radio = make("input", { type: "radio", name, value: regime, onchange: () => choose(regime) }), value = make("b");
		return { regime, radio, value, node: make("label", {}, radio, regime, value, dim(TITLES[regime])) };
	});
	const node = make("fieldset", {}, make("legend", {}, title), make("div", { class: "tiles" }, tiles.map((tile) => tile.node)));
	return {
		node,
		show(state, found, reference, hidden) {
			for (const { regime, radio, value } of tiles) {
				const one = found[regime];
				radio.checked = !hidden && regime === state.regime;
				value.className = hidden ? "" : one.refusal ? "bad" : differ(one.value, found[reference].value) ? "differs" : "";
				value.textContent = hidden ? "?" : resultText(one) + (value.className === "differs" ? " ≠" : "");
			}
		},
	};
}

/** The controls of sample weights or mask: a shape. */
function shapeControl(title, key, output, alertBox, changed) {
	const own = output[key], name = title.toLowerCase(), shape = scoreOf(output).score.shape;
	const set = (next) => changed(`${name}: ${own ? shapeText(own.shape) : "none"} → ${next ? shapeText(next.shape) : "none"}`, () => { output[key] = next; });
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
	return line(select(name, key, options, value, change), other);
}

function lossWeightField(output, label, alertBox, changed) {
	const set = ({ target }) => {
		const value = target.value.trim() === "" ? 1 : readNumber(target.value);
		target.toggleAttribute("aria-invalid", value === null);
		if (value === null) return;
		const before = output.lw === null ? 1 : output.lw;
		changed(`loss weight: ${short(before)} → ${short(value)}`, () => { output.lw = value === 1 ? null : value; });
	};
	return make("input", { class: "field", inputmode: "decimal", size: 4, "aria-label": label, "data-key": "lw", value: numberText(output.lw === null ? 1 : output.lw), oninput: set });
}
