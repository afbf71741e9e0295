// Contacts between links on top of the tree's solution. With the tree's answer G to their impulses
// their increments solve (1 + C G) d = a - C u, a small dense system; the tree then answers d.
// Environments push with different pairs: slot s is the s-th pair that pushes in a lane, so that the
// tree answers once per slot and not once per pair that pushes in any lane.
{
  const int known = pairs;
  const auto relative = [&](int pair, int r) -> V {
    const V* const row = pair_rows[pair] + 6 * r;
    const V* const ta = twist + 6 * pair_a[pair];
    const V* const tb = twist + 6 * pair_b[pair];
    V sum = zero;
    for (int c = 0; c < 6; ++c) sum = sum + row[c] * ta[c] - row[18 + c] * tb[c];
    return sum;
  };
  const auto act = [&](int pair, int r, V strength) {
    const V* const row = pair_rows[pair] + 36 + 6 * r;
    V* const fa = react + 6 * pair_a[pair];
    V* const fb = react + 6 * pair_b[pair];
    for (int c = 0; c < 6; ++c) {
      fa[c] = fa[c] + strength * row[c];
      fb[c] = fb[c] - strength * row[c];
    }
  };
  V slot[PAIRS + 1];
  filled = zero;
  for (int p = 0; p < known; ++p) {
    slot[p] = pair_on[p] > 0.5 ? filled : V(-1.0);
    filled = filled + pair_on[p];
  }
  int slots = 0;
  for (int l = 0; l < LANES; ++l)
    if (vlane(filled, l) > slots) slots = (int)vlane(filled, l);
  // More than this is not for Newton; lanes that have more do not pass.
  if (slots > SLOTS_MOST) slots = SLOTS_MOST;
  const int size = 3 * slots;
  if (slots > 0) {
    V before[6 * (NL + 1)], kept[NV + 1];
    V answer[9 * SLOTS_MOST * SLOTS_MOST], system[9 * SLOTS_MOST * SLOTS_MOST];
    V change[3 * SLOTS_MOST], reply[12 * SLOTS_MOST];
    for (int i = 0; i < 12 * slots; ++i) reply[i] = zero;
    for (int i = 0; i < size; ++i) change[i] = zero;
    for (int i = 0; i < size * size; ++i) answer[i] = zero;
    for (int p = 0; p < known; ++p) {
      V speed[3], aim[3];
      for (int r = 0; r < 3; ++r) speed[r] = relative(p, r);
      for (int r = 0; r < 3; ++r) {
        aim[r] = pair_reply[p][r];
        for (int c = 0; c < 3; ++c) aim[r] = aim[r] - pair_reply[p][3 + 3 * r + c] * speed[c];
      }
      for (int s = 0; s < slots; ++s) {
        const M here = slot[p] == (double)s;
        for (int i = 0; i < 12; ++i)
          reply[12 * s + i] = here ? pair_reply[p][i] : reply[12 * s + i];
        for (int r = 0; r < 3; ++r) change[3 * s + r] = here ? aim[r] : change[3 * s + r];
      }
    }
    for (int i = 0; i < 6 * (NL + 1); ++i) before[i] = twist[i];
    for (int i = 0; i < NV; ++i) kept[i] = dv[i];
    for (int column = 0; column < size; ++column) {
      for (int i = 0; i < 6 * (NL + 1); ++i) react[i] = twist[i] = zero;
      for (int p = 0; p < known; ++p)
        act(p, column % 3, slot[p] == (double)(column / 3) ? one : zero);
      @REACT@
      for (int p = 0; p < known; ++p)
        for (int r = 0; r < 3; ++r) {
          const V speed = relative(p, r);
          for (int s = 0; s < slots; ++s) {
            V& place = answer[(3 * s + r) * size + column];
            place = slot[p] == (double)s ? speed : place;
          }
        }
    }
    for (int row = 0; row < size; ++row) {
      const V* const gain = reply + 12 * (row / 3) + 3 + 3 * (row % 3);
      for (int column = 0; column < size; ++column) {
        V sum = V(row == column ? 1.0 : 0.0);
        for (int c = 0; c < 3; ++c)
          sum = sum + gain[c] * answer[(3 * (row / 3) + c) * size + column];
        system[row * size + column] = sum;
      }
    }
    for (int k = size - 1; k >= 0; --k) {
      determinant[0] = determinant[0] * system[k * size + k];
      const V per_pivot = one / system[k * size + k];
      for (int i = 0; i < k; ++i) {
        const V share = system[i * size + k] * per_pivot;
        change[i] = change[i] - share * change[k];
        for (int j = 0; j < k; ++j)
          system[i * size + j] = system[i * size + j] - share * system[k * size + j];
      }
    }
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < k; ++j) change[k] = change[k] - system[k * size + j] * change[j];
      change[k] = change[k] / system[k * size + k];
    }
    for (int i = 0; i < 6 * (NL + 1); ++i) {
      react[i] = zero;
      twist[i] = before[i];
    }
    for (int i = 0; i < NV; ++i) dv[i] = kept[i];
    for (int p = 0; p < known; ++p)
      for (int r = 0; r < 3; ++r) {
        V strength = zero;
        for (int s = 0; s < slots; ++s)
          strength = slot[p] == (double)s ? change[3 * s + r] : strength;
        pair_change[p][r] = strength;
        act(p, r, strength);
      }
    @REACT@
  }
  @FINISH@
}
