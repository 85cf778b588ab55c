import { Badge, makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { ChevronDownRegular } from '@fluentui/react-icons/svg/chevron-down'
import { ChevronRightRegular } from '@fluentui/react-icons/svg/chevron-right'
import { useMemo, useRef, useState, type KeyboardEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { useFormat } from '../../i18n/names'
import { commandLine, pidOf, rowsOf, type TreeNode } from '../../ui/processes'

const indent = 22

const useStyles = makeStyles({
  tree: { display: 'flex', flexDirection: 'column' },
  item: {
    display: 'grid', gridTemplateColumns: '20px minmax(0, 1fr) auto', columnGap: tokens.spacingHorizontalXS, alignItems: 'start', cursor: 'pointer',
    padding: '6px 10px 6px 6px', borderRadius: tokens.borderRadiusMedium, borderLeft: '3px solid transparent',
    ':hover': { backgroundColor: tokens.colorSubtleBackgroundHover },
    ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, outlineOffset: '-2px' },
  },
  selected: { backgroundColor: tokens.colorNeutralBackground1Selected, borderLeftColor: tokens.colorCompoundBrandStroke },
  toggle: { display: 'flex', fontSize: '16px', paddingTop: '2px', color: tokens.colorNeutralForeground3 },
  head: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: `2px ${tokens.spacingHorizontalS}` },
  name: { fontWeight: tokens.fontWeightSemibold, overflowWrap: 'anywhere' },
  dim: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200 },
  command: {
    fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase200, color: tokens.colorNeutralForeground2,
    overflowWrap: 'anywhere', display: '-webkit-box', WebkitBoxOrient: 'vertical', WebkitLineClamp: '2', overflow: 'hidden',
  },
  when: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase300, whiteSpace: 'nowrap', textAlign: 'right' },
})

interface Props {
  roots: TreeNode[]
  selected: string
  select: (node: TreeNode) => void
}

/** The processes from the first ancestor to those that took part. */
export function ProcessTree({ roots, selected, select }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set())
  const list = useRef<HTMLDivElement>(null)
  const rows = useMemo(() => rowsOf(roots, closed), [roots, closed])
  const focusable = rows.some((r) => r.id === selected) ? selected : rows[0]?.id

  const toggle = (node: TreeNode, close: boolean) => {
    const next = new Set(closed)
    if (close) next.add(node.id)
    else next.delete(node.id)
    setClosed(next)
  }
  const move = (to: TreeNode | undefined) => {
    if (!to) return
    select(to)
    const at = rows.indexOf(to)
    list.current?.querySelectorAll<HTMLElement>('[role=treeitem]')[at]?.focus()
  }
  const key = (event: KeyboardEvent, node: TreeNode) => {
    const at = rows.indexOf(node)
    const open = node.children.length > 0 && !closed.has(node.id)
    const acts: Record<string, () => void> = {
      ArrowDown: () => move(rows[at + 1]),
      ArrowUp: () => move(rows[at - 1]),
      Home: () => move(rows[0]),
      End: () => move(rows.at(-1)),
      ArrowRight: () => (open ? move(node.children[0]) : toggle(node, false)),
      ArrowLeft: () => (open ? toggle(node, true) : move(rows.findLast((r, i) => i < at && r.level < node.level))),
      Enter: () => select(node),
      ' ': () => select(node),
    }
    const act = acts[event.key]
    if (!act) return
    event.preventDefault()
    act()
  }
  return (
    <div ref={list} role="tree" data-testid="process-tree" aria-label={t('alert.tree')} className={styles.tree}>
      {rows.map((node) => {
        const { process } = node
        const open = node.children.length > 0 ? !closed.has(node.id) : undefined
        return (
          <div
            key={node.id} role="treeitem" aria-level={node.level} aria-expanded={open} aria-selected={node.id === selected}
            tabIndex={node.id === focusable ? 0 : -1} data-testid="process-node" data-part={node.part}
            className={mergeClasses(styles.item, node.id === selected && styles.selected)}
            style={{ marginLeft: Math.min(node.level - 1, 12) * indent }}
            onClick={() => select(node)} onKeyDown={(event) => key(event, node)}
          >
            <span
              className={styles.toggle} aria-hidden
              onClick={(event) => {
                if (open === undefined) return
                event.stopPropagation()
                toggle(node, open)
              }}
            >
              {open === undefined ? null : open ? <ChevronDownRegular /> : <ChevronRightRegular />}
            </span>
            <div>
              <div className={styles.head}>
                <span className={styles.name}>{process.name || process.path || t('process.unknown')}</span>
                {pidOf(process.key) !== '' && <span className={styles.dim}>{t('process.pid', { pid: pidOf(process.key) })}</span>}
                {node.part === 'acting' && <Badge appearance="tint" color="danger">{t('process.acting')}</Badge>}
                {node.part === 'beside' && <Badge appearance="tint" color="warning">{t('process.beside')}</Badge>}
              </div>
              <div className={styles.command}>{commandLine(process)}</div>
            </div>
            <div className={styles.when}>
              <div>{process.user?.name || process.user?.euid}</div>
              <time dateTime={process.started} title={format.time(process.started)}>{format.clock(process.started)}</time>
            </div>
          </div>
        )
      })}
    </div>
  )
}
