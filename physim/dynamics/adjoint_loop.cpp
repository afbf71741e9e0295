// Adjoint of one step of one block of environments: names between at-signs are traced phases.
const V* const q = q_in + (size_t)block * NQ;
const V* const v = v_in + (size_t)block * NV;
const V* const control = control_in + (size_t)block * NU;
const V* const external = external_in + (size_t)block * NV;
const V* const steps = steps_in + (size_t)block * 2;
const V* const num = numbers_in + (size_t)block * number_stride;
const V* const x = x_in + (size_t)block * NQ;
const V* const kappa = kappa_in + block;
const V* const impulses = impulses_in + (size_t)block * (2 * LIMITS + RUBS + 3 * CONTACTS);
const V* const gq = gq_in + (size_t)block * NQ;
const V* const gv = gv_in + (size_t)block * NV;
V* const bar_q = bar_q_out + (size_t)block * NQ;
V* const bar_v = bar_v_out + (size_t)block * NV;
V* const bar_control = bar_control_out + (size_t)block * NU;
V* const bar_external = bar_external_out + (size_t)block * NV;
V* const bar_steps = bar_steps_out + (size_t)block * 2;
V* const bar_num = bar_num_out + (size_t)block * (WITH_NUMBERS ? NUMBERS : 0);

V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V force[NV + 1], center0[3 * NL + 1], carrier[9 * NL + 1], impulse[NV + 1];
V wrench[6 * (NL + 1)], spatial[36 * (NL + 1)], push[6 * (NL + 1)], twist[6 * (NL + 1)];
V pair_gain[2 * LIMITS + RUBS + 1], pair_bound[RUBS + 1];
Matrix matrix;
V right[NV + 1], y[NV + 1];
V bar_pose0[12 * (NL + 1)], bar_pose1[12 * (NL + 1)], bar_twist[6 * (NL + 1)];
@RECORDS@

for (int i = 0; i < 12; ++i) {
  const V unit = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = unit;
  pose1[12 * NL + i] = unit;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = V(0.0);
for (int i = 0; i < 12 * (NL + 1); ++i) bar_pose0[i] = bar_pose1[i] = V(0.0);
for (int i = 0; i < 6 * (NL + 1); ++i) bar_twist[i] = V(0.0);
bar_steps[0] = bar_steps[1] = V(0.0);
if (WITH_NUMBERS)
  for (int i = 0; i < NUMBERS; ++i) bar_num[i] = V(0.0);

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
