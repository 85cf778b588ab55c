import { makeStyles, Switch, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { useName } from '../../i18n/names'
import type { DraftSetting } from './draft'

const useStyles = makeStyles({
  list: { listStyleType: 'none', margin: 0, padding: 0 },
  item: { display: 'grid', gridTemplateColumns: 'minmax(0, 1fr) auto', alignItems: 'center', gap: tokens.spacingHorizontalXL, padding: '10px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  name: { fontWeight: tokens.fontWeightSemibold },
  dim: { color: tokens.colorNeutralForeground3 },
  reason: { color: tokens.colorNeutralForeground2, fontStyle: 'normal' },
  text: { display: 'flex', flexDirection: 'column', gap: '2px' },
  control: { minWidth: '96px' },
})

interface Props {
  settings: DraftSetting[]
  disabled: boolean
  choose: (id: string, on: boolean) => void
}

/** The settings of a plan. One that cannot be switched says why. */
export function SettingsList({ settings, disabled, choose }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const why = {
    plan_off: t('setting.planOff'),
    requires_p2: t('setting.requiresP2'),
    not_in_this_version: t('setting.notInThisVersion'),
  }
  return (
    <ul className={styles.list}>
      {settings.map((s) => {
        // A setting without an engine is no promise, whatever the plan: that the
        // plan is off does not matter then, that it needs P2 does.
        const missing = !s.engine || s.reason === 'not_in_this_version'
        const reasons = [
          ...(s.reason === 'requires_p2' || (s.reason === 'plan_off' && !missing) ? [why[s.reason]] : []),
          ...(missing ? [why.not_in_this_version] : []),
        ]
        const known = name('capability', s.id)
        return (
          <li key={s.id} className={styles.item}>
            <div className={styles.text}>
              <span className={styles.name}>{known === s.id ? s.name : known}</span>
              <Text size={200} className={styles.dim}>{name('settingText', s.id) === s.id ? '' : name('settingText', s.id)}</Text>
              {reasons.length > 0 && <Text size={200} className={styles.reason} id={`why-${s.id}`} data-testid={`setting-${s.id}-reason`}>{reasons.join(t('list.separator'))}</Text>}
            </div>
            <Switch
              className={styles.control} checked={s.enabled} disabled={disabled || !s.changeable} label={s.enabled ? t('value.on') : t('value.off')}
              aria-label={known === s.id ? s.name : known} aria-describedby={reasons.length > 0 ? `why-${s.id}` : undefined}
              data-testid={`setting-${s.id}`} onChange={(_, d) => choose(s.id, d.checked)}
            />
          </li>
        )
      })}
    </ul>
  )
}
