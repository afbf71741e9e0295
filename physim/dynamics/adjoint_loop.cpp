// Adjoint of one step of one block of environments: names between at-signs are traced phases.
const auto pull_back_step = [&](const V* q, const V* v, const V* control, const V* external,
                                const V* steps, const V* num, const V* q_next, const V* x,
                                const V* kappa, const V* impulses, const V* gq, const V* gv,
                                V* bar_q, V* bar_v, V* bar_control, V* bar_external, V* bar_steps,
                                V* bar_num) {
V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V force[NV + 1], center0[3 * NL + 1], carrier[9 * NL + 1], impulse[NV + 1];
V wrench[6 * (NL + 1)], spatial[36 * (NL + 1)], push[6 * (NL + 1)], twist[6 * (NL + 1)];
V pair_gain[2 * LIMITS + RUBS + 1], pair_bound[RUBS + 1];
Matrix matrix;
V right[NV + 1], y[NV + 1];
V bar_pose0[12 * (NL + 1)], bar_pose1[12 * (NL + 1)], bar_twist[6 * (NL + 1)];
V motion_past[6 * NV + 1], center_past[3 * NL + 1], spread[9 * NL + 1], spread_past[9 * NL + 1];
V coming[6 * NL + 1], gone[6 * NL + 1], cot[6 * (NL + 1)];
@RECORDS@

for (int i = 0; i < 12; ++i) {
  const V unit = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = unit;
  pose1[12 * NL + i] = unit;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = V(0.0);
bar_steps[0] = bar_steps[1] = V(0.0);
if (WITH_NUMBERS) {
  for (int i = 0; i < 12 * (NL + 1); ++i) bar_pose0[i] = bar_pose1[i] = V(0.0);
  for (int i = 0; i < 6 * (NL + 1); ++i) bar_twist[i] = V(0.0);
  for (int i = 0; i < NUMBERS; ++i) bar_num[i] = V(0.0);
} else {
  for (int i = 0; i < 6 * (NL + 1); ++i) cot[i] = V(0.0);
}

V count = V(0.0);
const V fail = V(0.0), reach = PRUNING * steps[1];
V again = V(0.0);
@FORCE@
@NODE@
@APPROACH@
@CONTACTS:NODE@
@SWEEP@
@CONTACTS:RECHECK@
@CONTACTS:CENTRAL@
@MATRIX@
@CONTACTS:COUPLE@
@FACTOR@
@TRANSPOSED@
@CONTACTS:PULL@
@REVERSE@
};
