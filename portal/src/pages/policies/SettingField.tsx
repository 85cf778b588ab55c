import { Button, Checkbox, Field, Input, makeStyles, Select, Switch, Text, Textarea, tokens } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { DeleteRegular } from '@fluentui/react-icons/svg/delete'
import { useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import type { CatalogueSetting, Tag } from '../../api/policies'
import { useName } from '../../i18n/names'
import { useValue, type Exclusion, type Schedule } from './values'

const useStyles = makeStyles({
  setting: { display: 'grid', gridTemplateColumns: 'minmax(220px, 2fr) minmax(260px, 3fr)', gap: '4px 32px', padding: '14px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}`, '@media (max-width: 900px)': { gridTemplateColumns: '1fr' } },
  about: { display: 'flex', flexDirection: 'column', gap: '2px', minWidth: 0 },
  dim: { color: tokens.colorNeutralForeground3 },
  value: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS, minWidth: 0, alignItems: 'flex-start' },
  row: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalS, width: '100%' },
  grow: { flex: '1 1 180px', minWidth: 0 },
  wide: { width: '100%' },
  days: { display: 'flex', flexWrap: 'wrap', columnGap: tokens.spacingHorizontalS },
})

interface Props {
  setting: CatalogueSetting
  /** undefined: the policy says nothing. */
  value: unknown
  set: (value: unknown) => void
  disabled: boolean
  problem?: string
}

/** One setting of a policy: whether it says something, and what. */
export function SettingField({ setting, value, set, disabled, problem }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const words = useValue()
  const on = value !== undefined
  const label = name('policySetting', setting.name)
  const preset = words(setting.name, setting.default).join(t('policies.comma'))
  return (
    <div className={styles.setting} data-testid={`setting-${setting.name}`} role="group" aria-label={label}>
      <div className={styles.about}>
        <Text weight="semibold">{label}</Text>
        <Text size={200} className={styles.dim}>{name('policyAbout', setting.name)}</Text>
        {setting.united && <Text size={200} className={styles.dim}>{t('policies.united')}</Text>}
      </div>
      <div className={styles.value}>
        {!setting.engine ? <Text className={styles.dim}>{t('policies.noEngine')}</Text> : (
          <>
            <Switch
              checked={on} disabled={disabled} label={on ? t('policies.configured') : t('policies.notConfigured', { value: preset })} aria-label={t('policies.configure', { name: label })}
              data-testid={`configure-${setting.name}`} onChange={(_, d) => set(d.checked ? initial(setting) : undefined)}
            />
            {on && (
              <Field className={styles.wide} validationMessage={problem} validationState={problem ? 'error' : 'none'}>
                <Editor setting={setting} value={value} set={set} disabled={disabled} label={label} />
              </Field>
            )}
          </>
        )}
      </div>
    </div>
  )
}

/** What a setting begins with: its default, which changes nothing. */
function initial(setting: CatalogueSetting): unknown {
  return structuredClone(setting.default ?? (setting.kind === 'bool' ? false : []))
}

type EditorProps = Omit<Props, 'problem'> & { label: string }

function Editor(props: EditorProps): ReactNode {
  const { setting, value, set, disabled, label } = props
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  switch (setting.kind) {
    case 'bool':
      return (
        <Select aria-label={label} value={String(value)} disabled={disabled} onChange={(_, d) => set(d.value === 'true')} data-testid={`value-${setting.name}`}>
          <option value="true">{t('value.on')}</option>
          <option value="false">{t('value.off')}</option>
        </Select>
      )
    case 'enum':
      return (
        <Select aria-label={label} value={String(value)} disabled={disabled} onChange={(_, d) => set(d.value)} data-testid={`value-${setting.name}`}>
          {setting.values?.map((v) => <option key={v} value={v}>{name('policyValue', v)}</option>)}
        </Select>
      )
    case 'int':
      return (
        <Input
          type="number" min={setting.min} max={setting.max} value={String(value)} disabled={disabled} contentAfter={<Text size={200} className={styles.dim}>{t('policies.between', { min: setting.min, max: setting.max })}</Text>}
          input={{ 'data-testid': `value-${setting.name}`, 'aria-label': label } as object} onChange={(_, d) => set(d.value === '' ? '' : Number(d.value))}
        />
      )
    case 'actions':
      return <Actions {...props} />
    case 'schedules':
      return <Schedules {...props} />
    case 'exclusions':
      return <Exclusions {...props} />
    case 'tags':
      return <Tags {...props} />
    default:
      return setting.values ? <Choices {...props} /> : <Lines {...props} />
  }
}

/** Some of a few values. */
function Choices({ setting, value, set, disabled }: EditorProps) {
  const styles = useStyles()
  const name = useName()
  const chosen = value as string[]
  return (
    <div className={styles.days}>
      {setting.values?.map((v) => (
        <Checkbox
          key={v} label={name('policyValue', v)} checked={chosen.includes(v)} disabled={disabled} data-testid={`choice-${v}`}
          onChange={(_, d) => set(setting.values?.filter((x) => (x === v ? d.checked : chosen.includes(x))))}
        />
      ))}
    </div>
  )
}

/** Any text, one a line. */
function Lines({ setting, value, set, disabled, label }: EditorProps) {
  const { t } = useTranslation()
  // What is typed is kept as it is, or the cursor would jump on an empty line.
  const [text, setText] = useState(() => (value as string[]).join('\n'))
  return (
    <Field hint={t('policies.onePerLine')}>
      <Textarea
        value={text} disabled={disabled} resize="vertical" textarea={{ 'data-testid': `value-${setting.name}`, 'aria-label': label } as object}
        onChange={(_, d) => {
          setText(d.value)
          set(d.value.split('\n').map((line) => line.trim()).filter((line) => line !== ''))
        }}
      />
    </Field>
  )
}

function Actions({ setting, value, set, disabled }: EditorProps) {
  const styles = useStyles()
  const name = useName()
  const actions = value as Record<string, string>
  return (
    <div className={styles.value}>
      {Object.keys(setting.default as object).map((threat) => (
        <Field key={threat} label={name('threatType', threat)} className={styles.wide}>
          <Select value={actions[threat]} disabled={disabled} data-testid={`value-${threat}`} onChange={(_, d) => set({ ...actions, [threat]: d.value })}>
            {setting.values?.map((v) => <option key={v} value={v}>{name('policyValue', v)}</option>)}
          </Select>
        </Field>
      ))}
    </div>
  )
}

/** A list of rows that grow and shrink. */
function Rows<T>({ items, set, disabled, fresh, testid, row }: { items: T[]; set: (items: T[]) => void; disabled: boolean; fresh: T; testid: string; row: (item: T, change: (item: T) => void) => ReactNode }) {
  const styles = useStyles()
  const { t } = useTranslation()
  return (
    <div className={styles.value}>
      {items.map((item, i) => (
        <div key={i} className={styles.row} data-testid={`${testid}-row`}>
          {row(item, (next) => set(items.with(i, next)))}
          <Button appearance="subtle" icon={<DeleteRegular />} disabled={disabled} aria-label={t('policies.remove', { number: i + 1 })} onClick={() => set(items.toSpliced(i, 1))} />
        </div>
      ))}
      <Button icon={<AddRegular />} disabled={disabled} onClick={() => set([...items, fresh])} data-testid={`${testid}-add`}>{t('policies.add')}</Button>
    </div>
  )
}

const exclusionTypes = ['file', 'folder', 'extension', 'process']

function Exclusions({ value, set, disabled }: EditorProps) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const holds = { file: t('policies.exclusionFile'), folder: t('policies.exclusionFolder'), extension: t('policies.exclusionExtension'), process: t('policies.exclusionProcess') } as Record<string, string>
  return (
    <>
      <Text size={200} className={styles.dim}>{t('policies.scopeText')}</Text>
      <Rows
        items={value as Exclusion[]} set={set} disabled={disabled} testid="exclusion" fresh={{ type: 'folder', value: '', scope: 'epp' }}
        row={(e, change) => (
          <>
            <Select aria-label={t('policies.exclusionType')} value={e.type} disabled={disabled} onChange={(_, d) => change({ ...e, type: d.value, scope: d.value === 'extension' ? 'epp' : e.scope })}>
              {exclusionTypes.map((type) => <option key={type} value={type}>{name('exclusionType', type)}</option>)}
            </Select>
            <Input className={styles.grow} value={e.value} disabled={disabled} placeholder={holds[e.type]} input={{ 'aria-label': t('policies.exclusionValue'), 'data-testid': 'exclusion-value' } as object} onChange={(_, d) => change({ ...e, value: d.value })} />
            <Select aria-label={t('policies.exclusionScope')} value={e.scope} disabled={disabled || e.type === 'extension'} onChange={(_, d) => change({ ...e, scope: d.value })}>
              {['epp', 'global'].map((scope) => <option key={scope} value={scope}>{name('exclusionScope', scope)}</option>)}
            </Select>
          </>
        )}
      />
    </>
  )
}

function Tags({ value, set, disabled }: EditorProps) {
  const styles = useStyles()
  const { t } = useTranslation()
  return (
    <Rows
      items={value as Tag[]} set={set} disabled={disabled} testid="tag" fresh={{ key: 'GROUP', value: '' }}
      row={(tag, change) => (
        <>
          <Input className={styles.grow} value={tag.key} disabled={disabled} input={{ 'aria-label': t('policies.tagKey') } as object} onChange={(_, d) => change({ ...tag, key: d.value })} />
          <Input className={styles.grow} value={tag.value} disabled={disabled} input={{ 'aria-label': t('policies.tagValue'), 'data-testid': 'tag-value' } as object} onChange={(_, d) => change({ ...tag, value: d.value })} />
        </>
      )}
    />
  )
}

const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']

function Schedules({ value, set, disabled }: EditorProps) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  return (
    <Rows
      items={value as Schedule[]} set={set} disabled={disabled} testid="schedule" fresh={{ kind: 'quick', at: '02:30', randomizeMinutes: 60 }}
      row={(s, change) => (
        <>
          <Select aria-label={t('policies.scan')} value={s.kind} disabled={disabled} onChange={(_, d) => change({ ...s, kind: d.value, path: d.value === 'custom' ? s.path ?? '' : undefined })}>
            {['quick', 'full', 'custom'].map((kind) => <option key={kind} value={kind}>{name('scanKind', kind)}</option>)}
          </Select>
          <Input type="time" value={s.at} disabled={disabled} input={{ 'aria-label': t('policies.at') } as object} onChange={(_, d) => change({ ...s, at: d.value })} />
          {s.kind === 'custom' && <Input className={styles.grow} value={s.path ?? ''} disabled={disabled} placeholder={t('policies.path')} input={{ 'aria-label': t('policies.path') } as object} onChange={(_, d) => change({ ...s, path: d.value })} />}
          <Input
            type="number" min={0} max={1439} value={String(s.randomizeMinutes ?? 0)} disabled={disabled} contentBefore={<Text size={200} className={styles.dim}>{t('policies.spread')}</Text>}
            input={{ 'aria-label': t('policies.spread') } as object} onChange={(_, d) => change({ ...s, randomizeMinutes: Number(d.value) })}
          />
          <div className={styles.days}>
            {weekdays.map((day) => (
              <Checkbox
                key={day} label={name('weekday', day)} disabled={disabled} checked={!s.days || s.days.length === 0 || s.days.includes(day)}
                onChange={(_, d) => {
                  const now = s.days && s.days.length > 0 ? s.days : weekdays
                  const next = weekdays.filter((w) => (w === day ? d.checked : now.includes(w)))
                  change({ ...s, days: next.length === weekdays.length ? undefined : next })
                }}
              />
            ))}
          </div>
        </>
      )}
    />
  )
}
