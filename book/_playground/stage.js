// --- the stage: an output on its way from the element losses to the number, picture by picture

/** What a mask or weights do to each element of the score array: 0 where it does not count. */
const effectOn = (part, stage) => (part.refusal || !part.effects[stage] ? null : part.effects[stage][0].data);

/** Why element i counts nothing, in words; empty where it counts. */
function silence(output, part, i) {
	const at = Math.floor(i / (hasClass(output) ? output.e.shape.at(-1) : 1)), off = (stage) => (effectOn(part, stage) || [])[at] === 0;
	return off("mask") ? "masked: it does not count" : off("weights") ? "weight 0: it does not count" : "";
}

/** The pictures: kind (start, mask, weights, scale, sum, divide), text, label, values and the axis that each dimension is. */
function frames(output, part) {
	const axes = names(output), counts = output.e.data.map((_, i) => !silence(output, part, i));
	const list = [{ kind: "start", text: "the element losses", values: output.e, places: order(axes), counts }];
	const add = (kind, text, values, places, more = {}) => list.push({ kind, text, values, places, before: list.at(-1).values, ...more });
	const collapse = ({ op, first, divisor, values }) => {
		let { values: now, places } = list.at(-1);
		for (let k = places.length - 1; k >= first; k--) {
			const before = now, name = places[k] === null ? "the added axis" : axes[places[k]];
			now = sumOver(now, [k]);
			places = places.filter((_, d) => d !== k);
			if (before.shape[k] > 1) add("sum", `sum over ${name}`, now, places, { before, gone: k });
		}
		if (divisor === null || divisor === 1) return;
		const end = op === "mean" ? " = mean" : ", the sum of the weights";
		add("divide", `÷ ${plain(divisor)}${end}`, values, places, { label: `÷ ${plain(divisor)}` });
	};
	const { step, score } = scoreOf(output);
	if (step) collapse({ ...step, first: axes.length - 1, values: score });
	for (const one of part.refusal ? [] : part.steps.slice(1)) {
		if (one.first !== undefined) collapse(one);
		else if (one.op === "divide") add("divide", stepText(one), one.values, one.places, { label: divisorText(one) });
		else {
			const { name, factor, meets } = one, given = nd(one.inputShape, list.at(-1).values.data);
			const kind = { mask: "mask", weights: "weights" }[name] || "scale";
			add(kind, one.text.replace(/ as \([^)]*\)/, ""), one.values, one.places, { given, factor, meets });
		}
	}
	return list;
}

/** One colour scale for all pictures, of what counts; sums may go beyond it. */
const scaleOf = (list) => range(list.flatMap(({ kind, values, counts }) => (kind === "sum" ? [] : values.data.filter((_, i) => !counts || counts[i]))));

/** Where cells lie: axis directions across, down, planes across, planes down. Null where there are more axes than that. */
function layout(list, rank, width) {
	const directions = ({ places }) => {
		const taken = places.map((p) => (p === null ? null : rank - 1 - p)), free = [0, 1, 2, 3].filter((d) => !taken.includes(d));
		return taken.map((_, k) => taken.length - 1 - k).map((k) => (taken[k] === null ? free.shift() : taken[k])).reverse();
	};
	const ways = list.map(directions), extents = [1, 1, 1, 1];
	if (rank > 4 || ways.flat().some((d) => !(d >= 0 && d < 4))) return null;
	list.forEach(({ values }, f) => values.shape.forEach((n, k) => { extents[ways[f][k]] = Math.max(extents[ways[f][k]], n); }));
	const gap = 12, across = extents[0] * extents[2], W = Math.max(24, Math.min(48, Math.floor((width - gap * (extents[2] - 1)) / across))), H = 30;
	const pitch = [W, H, extents[0] * W + gap, extents[1] * H + gap];
	const at = (f, i) => {
		const place = extents.map((n) => (n - 1) / 2), { shape } = list[f].values;
		coordinates(shape, i).forEach((n, k) => { place[ways[f][k]] = shape[k] > 1 ? n : (extents[ways[f][k]] - 1) / 2; });
		return [place[0] * pitch[0] + place[2] * pitch[2], place[1] * pitch[1] + place[3] * pitch[3]];
	};
	return { at, ways, W, H, width: extents[2] * pitch[2] - gap, height: extents[3] * pitch[3] - gap, extents };
}

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The old cell that each new cell comes from; for sums, the new cell that each old one goes into. */
function origins(frame) {
	if (frame.kind === "sum") {
		const { shape } = frame.before, kept = order(shape).filter((k) => k !== frame.gone);
		return order(frame.before.data).map((i) => {
			const at = coordinates(shape, i);
			return kept.reduce((place, k) => place * shape[k] + at[k], 0);
		});
	}
	return frame.given ? lookup(frame.values.shape, frame.given.shape) : order(frame.values.data);
}

/** Draws one picture of `list`; `moving` shows how it came from the one before. What is there is always the picture itself: motion comes on top. */
function drawStage(box, list, f, rank, axes, moving) {
	const frame = list[f], before = list[f - 1], scale = scaleOf(list);
	const plan = frame.values.data.length <= MOST && layout(list, rank, box.clientWidth - 70 || 320);
	if (!plan) {
		box.replaceChildren(picture(frame.values, frame.places.map((p) => axes[p]), frame.places, [], scale));
		return;
	}
	const { W, H, at, ways } = plan, strip = frame.kind === "weights" && frame.factor.data.length > 1 ? frame.meets : [];
	const left = 62, top = 24;
	const put = (kind, [x, y], text, value) => {
		const [fill, ink] = value === undefined ? ["", ""] : colors(value, scale);
		const style = `left:${left + x}px;top:${top + y}px;width:${W - 2}px;height:${H - 2}px;` + (fill && `background:${fill};color:${ink}`);
		return make("div", { class: kind, style }, W < 32 ? "" : text);
	};
	const mask = list.slice(0, f + 1).findLast((one) => one.kind === "mask");
	const out = mask && same(mask.values.shape, frame.values.shape) ? expand(mask.factor, mask.values.shape).data : [];
	const cells = frame.values.data.map((x, i) => put(out[i] === 0 ? "lc out" : "lc", at(f, i), short(x), x));
	// labels of the axes that are left: across on top, down on the left
	const labels = frame.values.shape.flatMap((n, k) => {
		const way = ways[f][k], name = frame.places[k] === null ? "" : axes[frame.places[k]];
		if (way > 1 || n === 1) return [];
		return each(n, (i) => {
			const [x, y] = at(f, i * count(frame.values.shape.slice(k + 1)));
			const style = way ? `left:0;width:${left - 6}px;top:${top + y}px;height:${H}px` : `left:${left + x}px;width:${W}px;top:0`;
			return make("div", { class: way ? "tick down" : "tick", style }, i ? String(i) : [name ? chip(name) : "new", " 0"]);
		});
	});
	const stage = make("div", { class: "stage", role: "img", "aria-label": inWords(frame.values), style: `width:${left + plan.width}px;height:${top + plan.height + 34}px` }, labels, cells);
	if (frame.label) stage.append(make("b", { class: "div chip", style: `left:${left}px;top:${top + plan.height + 4}px` }, frame.label));
	else if (strip.length) {
		const along = frame.meets.flatMap((p) => (p === null ? [] : [axes[p]]));
		stage.append(make("span", { class: "q chip", style: `left:${left}px;top:${top + plan.height + 4}px` }, "× ", frame.factor.data.length > 12 ? "weights" : frame.factor.data.map(short).join(", "), along.length ? [" along ", along.map(chip)] : ""));
	}
	box.replaceChildren(stage);
	if (!moving || !before || still()) return;

	const ghosts = [], from = origins(frame);
	const ghost = (node, steps, options) => {
		stage.append(node);
		ghosts.push(node);
		node.setAttribute("aria-hidden", "true");
		node.animate(steps, { fill: "both", easing: "ease-in-out", ...options }).finished.then(() => node.remove(), () => node.remove());
	};
	const key = (transform, opacity, offset = null) => ({ transform, opacity, offset });
	const move = ([x, y], [u, v]) => `translate(${u - x}px,${v - y}px)`;
	const appear = (node, delay) => node.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 160, delay, fill: "backwards" });
	const old = (i) => put("lc", at(f - 1, i), short(before.values.data[i]), before.values.data[i]);
	if (frame.kind === "sum") {
		before.values.data.forEach((_, i) => ghost(old(i), [key("none", 1), key(move(at(f - 1, i), at(f, from[i])), 0.75)], { duration: 420 }));
		cells.forEach((cell) => appear(cell, 400));
		return;
	}
	if (frame.label) stage.querySelector(".chip").animate([key("scale(.4)", 0), key("scale(1.15)", 1, 0.7), key("none", 1)], { duration: 360 });
	const factor = frame.factor && expand(frame.factor, frame.values.shape).data;
	cells.forEach((cell, i) => {
		const back = old(from[i]), here = at(f, i), there = at(f - 1, from[i]);
		if (frame.kind === "mask" && factor[i] === 0) ghost(back, [key("none", 1), key("translateY(70px) rotate(14deg)", 0)], { duration: 560, easing: "ease-in" });
		else {
			ghost(back, [key("none", 1), key(move(there, here), 1, 0.8), key(move(there, here), 0)], { duration: 460 });
			appear(cell, 380);
		}
		if (frame.kind !== "weights") return;
		// the weight comes from the side of the axis that it meets
		const only = frame.meets.flatMap((p, k) => (frame.factor.shape[k] > 1 ? [ways[f][k + frame.values.shape.length - frame.meets.length]] : []));
		const start = only.length === 1 && only[0] === 1 ? [-W, here[1]] : only.length === 1 && only[0] === 0 ? [here[0], -H] : [here[0], here[1] - 14];
		ghost(put("lc weight", start, `×${short(factor[i])}`), [key("none", 0), key("none", 1, 0.25), key(move(start, here), 1, 0.8), key(move(start, here), 0)], { duration: 460 });
	});
}
