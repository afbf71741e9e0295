// Which environments sit in the lanes of a block; lanes from `real` on repeat the last one.
struct Seats { int item[LANES]; int real; };
const auto consecutive = [](int first, int end) -> Seats {
  Seats at;
  at.real = end - first < LANES ? end - first : LANES;
  for (int l = 0; l < LANES; ++l) at.item[l] = first + (l < at.real ? l : at.real - 1);
  return at;
};
const auto gather = [&](const double* source, int width, const Seats& at, V* target) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l) rows[l] = source + (size_t)at.item[l] * width;
  vgather_rows(rows, width, target);
};
const auto scatter = [&](const V* source, int width, const Seats& at, double* target) {
  double* rows[LANES];
  for (int l = 0; l < at.real; ++l) rows[l] = target + (size_t)at.item[l] * width;
  vscatter_rows(source, width, rows, at.real);
};
