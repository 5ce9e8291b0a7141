// --- traps: an address, and what to notice; lessons: guess, set up, reveal

const GROUPS = ["masks", "weights", "shapes", "batches and outputs"];
const PRESETS = [
	["Mask and weights", 0, "regime=keras-2.2&axes=b3s3&e=3,2,1,3,1,5,6,4,2&w=3:1,3,0&m=3x3:111110100",
		"One score array, one mask, one set of weights, four numbers. In keras-2.2 the two divisors multiply."],
	["Padding", 0, "regime=keras-2.3&axes=b3s3&e=3,2,1,3,1,5,6,4,2&m=3x3:111110100",
		"One regime counts masked steps in its divisor: the more padding, the smaller its loss."],
	["All masked", 0, "regime=tf-keras-2.10&axes=b1s3&e=2,1,4&m=1x3:000",
		"Nothing is left, and the divisor is zero. Two regimes say NaN, two say zero."],
	["As many samples as steps", 1, "regime=keras-3&axes=b3s3&e=3,5,1,3,1,5,6,4,2&w=3:1,3,0",
		"One weight per sample, but Keras 3 lays them along the last axis: the weights went to the steps, not to the samples. The sizes fit, so nothing warns you."],
	["Zero weights", 1, "regime=keras-2.2&axes=b3&e=0,4,4&w=3:0.1,0,0.1",
		"Up to Keras 2.2.5 a weight of zero also left the divisor. Nobody divides by the sum of the weights, unless you choose mean_with_sample_weight."],
	["NaN under weight 0", 1, "regime=keras-3&axes=b3&e=1,NaN,3&w=3:1,0,1",
		"Zero times NaN is NaN. A weight does not remove a missing label: replace the label first."],
	["Five classes", 2, "regime=keras-3&axes=b2r2c2k5&fn=mean&e=0.01,0.02,0.01,0,0.9,0.01,0,0.02,0.01,0,0.02,0.01,0,0.01,0,0.01,0.01,0.02,0,0.01,"
		+ "0.01,0.02,0,0.01,0,0,0.01,0.02,0.01,0.01,0.01,0.01,0,0.02,1.2,0.02,0,0.01,0.01,0",
		"A small number, and nearly all of it is one class: see who pays, below. The mean over class comes first, before every weight."],
	["(N, 1) on (N,)", 2, "regime=keras-2.2&axes=b3&e=1,2,6&w=3x1:3,2,1",
		"In keras-2.2 a column of weights on a line of losses becomes a square: every weight meets every sample. Later regimes drop or append the axis."],
	["A loss of one number", 2, "regime=keras-3&axes=0&e=2&w=3:0,1,5",
		"The loss function has averaged already. Weights can no longer choose among samples: they scale the number, or are refused."],
	["Short last batch", 3, "regime=keras-3&axes=b5s2&e=1,3,2,2,4,0,1,1,9,7&m=5x2:1110111011",
		"See the table of smaller batches: each batch counts its own divisor, so with a mask the number of the epoch depends on the batch size."],
	["SUM", 3, "regime=keras-3&reduction=sum&axes=b2r2c2k3&fn=mean&e=1,2,0,0,1,2,3,0,0,1,1,1,0,0,3,2,2,2,0,3,3,1,0,2",
		"After the loss function nothing is divided: the number grows with the batch and the picture. The mean over class stays, because the loss function takes it."],
	["Two outputs", 3, "regime=keras-3&axes=b2k3&fn=sum&e=0,0.7,0,0,0,1.1&axes2=b2&e2=400,100&lw2=0.01",
		"Each output becomes a number, is multiplied by its loss weight, and the products are added. Keras prints the outputs before their weights."],
].map(([name, kind, state, notice]) => ({ name, kind, state: START + state, notice }));

const trap = (name) => PRESETS.find((one) => one.name === name).state;
const valueOf = (address) => evaluate(read(address), read(address).regime).value;

/** `right` is the place of the right option; `goal` is the state that `task` asks for. */
const LESSONS = [
	() => {
		const start = trap("Mask and weights"), { found } = compare(read(start)), shown = plain(valueOf(start));
		return {
			name: `Which Keras printed ${shown}?`, start,
			ask: `Below: nine errors, a mask that keeps six of them, and one weight per sample. Four generations of Keras make four numbers of these same arrays. Which of them printed ${shown}?`,
			options: REGIMES.map((one) => `${one}: ${TITLES[one]}`), right: REGIMES.findIndex((one) => plain(found[one].value) === shown),
			reveal: "Only keras-2.2 divides twice: by the share of steps that are not masked, and by the share of weights that are not 0. keras-2.3 keeps neither divisor, tf-keras-2.10 the first. keras-3 keeps the first too, but its weights meet another axis.",
			task: "Choose keras-3 among the four, and look where the weights have gone.", goal: start.replace("keras-2.2", "keras-3"),
		};
	},
	() => {
		const start = trap("As many samples as steps");
		return {
			name: "Which axis do the weights meet?", start,
			ask: "Three samples of three steps, and three weights, one per sample: 1, 3 and 0. They have the shape (3,), and Keras 3 takes them. What does the weight 0 leave out?",
			options: ["the last sample", "the last step of every sample", "nothing: Keras 3 refuses the weights"], right: 1,
			reveal: "Keras 3 lines up last axes, as NumPy does. The weights went to the steps, not to the samples, and since there are as many of both, nothing warns you.",
			task: "Under “Shapes and rules”, give the weights the shape (3, 1): one per sample, as a column.", goal: start.replace("w=3:", "w=3x1:"),
		};
	},
	() => {
		const start = trap("Zero weights"), goal = start.replace("0.1,0,0.1", "0.1,1e-9,0.1"), [before, after] = [valueOf(start), valueOf(goal)];
		return {
			name: "A weight that is nearly zero", start,
			ask: `Three samples with the weights 0.1, 0 and 0.1 make ${plain(before)} in keras-2.2. Then the 0 becomes 1e-9, a billionth. What does it make now?`,
			options: [before, after, 2 * before].map((x) => plain(x, 3)), right: 1,
			reveal: "A weight of exactly 0 leaves the divisor, and a billionth does not: the sum is divided by three samples instead of two.",
			task: "Write 1e-9 over the weight 0.", goal,
		};
	},
	() => {
		const start = trap("Five classes"), goal = start.replace("fn=mean", "fn=sum"), [before, after] = [valueOf(start), valueOf(goal)];
		return {
			name: "Mean or sum over the classes?", start,
			ask: `Two pictures of four pixels with five classes. A loss function that takes the mean over class, such as binary crossentropy, makes ${plain(before, 3)} of them. What does one make that takes the sum, as categorical crossentropy does?`,
			options: [before, after / 2, after, 5 * after].map((x) => plain(x, 3)), right: 2,
			reveal: "The class axis is gone before Keras counts anything, so its divisor is lost with the mean: five classes, five times the number. The shares stay as they are.",
			task: "Under “Shapes and rules”, set “over class” to the sum.", goal,
		};
	},
].map((make) => make());
