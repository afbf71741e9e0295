// All derivatives of one step of one block of environments: names between at-signs are traced
// phases. Columns are tangent steps of q, velocities, controls.
constexpr int PRIMALS = 2 * LIMITS + RUBS + 3 * CONTACTS, COLUMNS = 2 * NV + NU;
const Seats at = consecutive(block * LANES, batch);
V q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], steps[2], kappa[1];
V x[NQ + 1], impulses[PRIMALS + 1];
const V* const num = numbers_in + (size_t)block * number_stride;
gather(q_in, NQ, at, q);
gather(v_in, NV, at, v);
gather(control_in, NU, at, control);
gather(external_in, NV, at, external);
gather(interval_in, 1, at, steps);
gather(timestep_in, 1, at, steps + 1);
gather(x_in, NQ, at, x);
if (EXACT) gather(impulses_in, PRIMALS, at, impulses);
kappa[0] = V(kappa_in);

V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V center0[3 * NL + 1], carrier[9 * NL + 1], wrench[6 * (NL + 1)], spatial[36 * (NL + 1)];
V push[6 * (NL + 1)], twist[6 * (NL + 1)], nodal[36 * (NL + 1)];
Matrix matrix;
V motion_past[6 * NV + 1], center_past[3 * NL + 1], spread[9 * NL + 1], spread_past[9 * NL + 1];
V coming[6 * NL + 1], gone[6 * NL + 1];
V pair_gain[2 * LIMITS + RUBS + 1], pair_bound[RUBS + 1];
V rhs[NV * COLUMNS], map_x[9 * NV], map_q[9 * NV], moved[NV], ahead[2 * NV];
@RECORDS@

for (int i = 0; i < 12; ++i) {
  const V unit = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = unit;
  pose1[12 * NL + i] = unit;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = V(0.0);
for (int i = 0; i < 36 * (NL + 1); ++i) nodal[i] = V(0.0);
for (int i = 0; COUPLED && i < NV * NV; ++i) rhs[i] = V(0.0);

V count = V(0.0);
const V fail = V(0.0), reach = PRUNING * steps[1];
V again = V(0.0);
@NODE@
@APPROACH@
@CONTACTS:NODE@
@SWEEP@
@CONTACTS:RECHECK@
@CONTACTS:CENTRAL@
@MATRIX@
@CONTACTS:COUPLE@
@CONTACTS:BEND@
@SLOPES@
@FACTOR@
@MAPS@
for (int i = 0; i < NV; ++i) moved[i] = V(0.0);
for (int c = 0; c < COLUMNS; ++c) {
  V* const column = rhs + NV * c;
  @COLUMN@
  if (c < NV) moved[c] = V(1.0);
  @ROWS@
  if (c < NV) moved[c] = V(0.0);
  const bool is_state = c < 2 * NV;
  double* const out = is_state ? a_out + c : b_out + (c - 2 * NV);
  const int width = is_state ? 2 * NV : NU;
  for (int l = 0; l < at.real; ++l)
    for (int i = 0; i < 2 * NV; ++i)
      out[((size_t)at.item[l] * 2 * NV + i) * width] = vlane(ahead[i], l);
}
