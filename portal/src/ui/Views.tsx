import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { useFormat } from '../i18n/names'

const useStyles = makeStyles({
  bar: { display: 'flex', gap: tokens.spacingHorizontalXS, marginLeft: '-12px', overflowX: 'auto', flexShrink: 0 },
  view: {
    display: 'flex', gap: tokens.spacingHorizontalXS, padding: '10px 12px', border: 0, background: 'none', font: 'inherit', whiteSpace: 'nowrap', cursor: 'pointer',
    color: tokens.colorNeutralForeground2, borderBottom: '3px solid transparent',
    ':hover': { color: tokens.colorNeutralForeground1, borderBottomColor: tokens.colorNeutralStroke1 },
    ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, outlineOffset: '-2px' },
  },
  current: { color: tokens.colorNeutralForeground1, fontWeight: tokens.fontWeightSemibold, borderBottomColor: tokens.colorCompoundBrandStroke, ':hover': { borderBottomColor: tokens.colorCompoundBrandStroke } },
  count: { color: tokens.colorNeutralForeground3, fontWeight: tokens.fontWeightRegular },
})

interface View {
  id: string
  label: string
  count?: number
}

/** Views of one list. They are filters that are used so often that they stand above it. */
export function Views({ label, views, current, choose, testid }: { label: string; views: View[]; current: string; choose: (id: string) => void; testid: string }) {
  const styles = useStyles()
  const format = useFormat()
  return (
    <div role="group" aria-label={label} className={styles.bar}>
      {views.map((v) => (
        <button key={v.id} type="button" aria-pressed={v.id === current} className={mergeClasses(styles.view, v.id === current && styles.current)} onClick={() => choose(v.id)} data-testid={`${testid}-${v.id}`}>
          {v.label}
          {v.count !== undefined && <span className={styles.count}>{format.number(v.count)}</span>}
        </button>
      ))}
    </div>
  )
}
