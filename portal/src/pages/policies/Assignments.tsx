import { Button, Field, makeStyles, Select, Tag, TagGroup, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listEnvironments } from '../../api/calls'
import { listGroups, type Assignment } from '../../api/policies'
import { useData } from '../../api/use'
import { useAssigned } from './values'

const useStyles = makeStyles({
  list: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS, alignItems: 'flex-start' },
  row: { display: 'flex', flexWrap: 'wrap', alignItems: 'flex-end', gap: tokens.spacingHorizontalS },
  tags: { flexWrap: 'wrap', rowGap: tokens.spacingVerticalXS },
  dim: { color: tokens.colorNeutralForeground3 },
})

const key = (a: Assignment) => `${a.kind} ${a.id ?? ''}`

/** Who gets the policy. */
export function Assignments({ value, set, disabled }: { value: Assignment[]; set: (value: Assignment[]) => void; disabled: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useAssigned()
  const environments = useData('environments', listEnvironments, ['plan'])
  const groups = useData('groups', listGroups, ['group'])
  const [chosen, setChosen] = useState('')
  const all: Assignment[] = [
    { kind: 'all' },
    ...(environments.data?.items ?? []).map((e): Assignment => ({ kind: 'environment', id: e.id, name: e.name })),
    ...(groups.data?.items ?? []).map((g): Assignment => ({ kind: 'group', id: g.id, name: g.name })),
  ]
  const taken = new Set(value.map(key))
  const left = all.filter((a) => !taken.has(key(a)))
  const next = left.find((a) => key(a) === chosen) ?? left[0]
  return (
    <div className={styles.list}>
      {value.length === 0 ? <Text className={styles.dim}>{t('policies.draftText')}</Text> : (
        <TagGroup className={styles.tags} aria-label={t('policies.assignedTo')} onDismiss={(_, d) => set(value.filter((a) => key(a) !== d.value))}>
          {value.map((a) => <Tag key={key(a)} value={key(a)} dismissible={!disabled} dismissIcon={{ 'aria-label': t('policies.unassign') }} data-testid="assignment">{words(a)}</Tag>)}
        </TagGroup>
      )}
      {!disabled && next && (
        <div className={styles.row}>
          <Field label={t('policies.assignTo')}>
            <Select value={key(next)} onChange={(_, d) => setChosen(d.value)} data-testid="assign-choice">
              {left.map((a) => <option key={key(a)} value={key(a)}>{words(a)}</option>)}
            </Select>
          </Field>
          <Button onClick={() => set([...value, next])} data-testid="assign-add">{t('policies.assign')}</Button>
        </div>
      )}
    </div>
  )
}
