/** The mark of the product; its name stands beside it, so it has none itself. */
export function Mark({ size }: { size: number }) {
  return <img src="/mark.svg" width={size} height={size} alt="" />
}
